"""The stores that a raw zone may lie on."""

from pathlib import Path

import pytest
from support.object_store import EMULATOR, ObjectStore
from support.raw_zones import empty_root


@pytest.fixture(params=["local", pytest.param("object store", marks=pytest.mark.bigquery)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The root of an empty raw zone."""
    if request.param == "local":
        return str(tmp_path / "raw")
    store: ObjectStore = request.getfixturevalue("object_store")
    monkeypatch.setenv(EMULATOR, store.address)
    return empty_root()
