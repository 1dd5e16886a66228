"""A fork server and a folder for the tests of a file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.forks import Forks
from faults.forks import forks as running_forks


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with running_forks() as server:
        reason = server.unavailable()
        if reason:
            pytest.skip(reason)
        yield server


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a kill leaves what the kernel has, so nothing needs to reach a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with tempfile.TemporaryDirectory(prefix="klinehouse-", dir=memory if memory.is_dir() else None) as made:
        yield Path(made)
