"""BigQuery and its object store, played on this machine."""

from collections.abc import Iterator

import pytest
from support import bigquery_home
from support.bigquery_home import Cloud


@pytest.fixture(scope="module")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An object store that keeps objects as files, and an emulator of BigQuery that loads those files."""
    reason = bigquery_home.unavailable()
    if reason:
        pytest.skip(reason)
    with bigquery_home.cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: Cloud, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The same, with the environment leading there for one test."""
    for name, value in running_cloud.environment.items():
        monkeypatch.setenv(name, value)
    return running_cloud
