"""Simulated exchanges whose clock stands still."""

from collections.abc import Callable
from typing import Any

import pytest
from support.exchanges import NOW, Exchange

from ingestion.simulator.server import build_app


@pytest.fixture
def exchange() -> Callable[..., Exchange]:
    """Makes an exchange; its clock stands still at NOW unless told otherwise."""

    def make(**options: Any) -> Exchange:
        return Exchange(build_app(**{"now": NOW} | options))

    return make


@pytest.fixture(scope="module")
def plain() -> Exchange:
    """Seed 1, nothing wrong, at NOW."""
    return Exchange(build_app(now=NOW))
