"""Fixtures of all tests: nothing of the developer's own machine gets in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import googlesql
from support import object_store as object_stores
from support import pubsub_emulator as emulator
from support.object_store import ObjectStore

_DATA = os.environ.get("KLINEHOUSE_TEST_DATA")
# Folders whose files take longest, in this order: begun last, they would leave all but one worker idle at the end.
_LONGEST = ("bigquery", "orchestration", "warehouse", "faults", "klinehouse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no `.env` of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("KLINEHOUSE_"):
            monkeypatch.delenv(name)
    for name in ("DAGSTER_HOME", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def quick_flags_of_dbt() -> Iterator[None]:
    """For each flag of an adapter dbt looks through the stack, with its sources, for who wants it, to warn of it.
    Under as many frames and modules as a test has, that takes a quarter of a run, and seconds on BigQuery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbt_common.behavior_flags.BehaviorFlagRendered._default_source", staticmethod(lambda: "a test"))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recorded market data of the real exchange, which is not part of the project."""
    if not _DATA or not Path(_DATA).is_dir():
        pytest.skip("KLINEHOUSE_TEST_DATA does not name a folder of recorded market data")
    return Path(_DATA).resolve()


@pytest.fixture(scope="session")
def pubsub_emulator() -> Iterator[str]:
    """HOST:PORT of Google's emulator of Pub/Sub, for PUBSUB_EMULATOR_HOST; a project of one's own is empty."""
    reason = emulator.unavailable()
    if reason:
        pytest.skip(reason)
    with emulator.running() as host:
        yield host


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An object store with one bucket; a prefix of one's own is empty. STORAGE_EMULATOR_HOST is to name its address."""
    reason = object_stores.unavailable()
    if reason:
        pytest.skip(reason)
    with object_stores.running() as store:
        yield store


@pytest.fixture(scope="session")
def google_sql() -> Iterator[googlesql.GoogleSql]:
    """Google's analyzer and reference executor of BigQuery's SQL."""
    reason = googlesql.unavailable()
    if reason:
        pytest.skip(reason)
    with googlesql.running() as google:
        yield google
