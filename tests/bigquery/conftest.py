"""BigQuery and its object store, played on this machine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from support import bigquery_emulator, object_store
from support.googlesql import PYTHON


@dataclass(frozen=True)
class Cloud:
    """A project with a bucket: what has to be in the environment, and a root for a raw zone that both see."""

    environment: Mapping[str, str]
    raw_url: str


@pytest.fixture(scope="module")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An object store that keeps objects as files, and an emulator of BigQuery that loads those files."""
    reason = object_store.unavailable() or bigquery_emulator.unavailable(PYTHON)
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cloud")
    objects = folder / "objects"
    objects.mkdir()
    with object_store.running(objects) as store, bigquery_emulator.running(str(PYTHON), folder, objects) as emulator:
        environment = emulator.environment | {object_store.EMULATOR: store.address}
        yield Cloud(environment, f"gs://{object_store.BUCKET}/raw")


@pytest.fixture
def cloud(running_cloud: Cloud, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The same, with the environment leading there for one test."""
    for name, value in running_cloud.environment.items():
        monkeypatch.setenv(name, value)
    return running_cloud
