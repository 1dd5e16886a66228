"""Landing months of one hourly series from a scripted host into a zone of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.hourly import SERIES, Landing, Publisher

from ingestion.raw_zone import RawZone

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost


@pytest.fixture
def exchange(host: ArchiveHost) -> Publisher:
    """Its REST API knows the series and has no bar of it yet."""
    host.klines[SERIES.symbol, SERIES.interval] = []
    return Publisher(host)


@pytest.fixture
def zone(tmp_path: Path) -> RawZone:
    return RawZone(str(tmp_path / "raw"))


@pytest.fixture
def landing(host: ArchiveHost, exchange: Publisher, zone: RawZone) -> Landing:
    return Landing(host, zone)
