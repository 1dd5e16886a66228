"""Engines that the project's SQL runs on."""

from collections.abc import Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from support import bigquery_emulator
from support.engines import DuckDB, Emulated, Engine, Reference
from support.googlesql import PYTHON


@pytest.fixture(
    scope="module",
    params=[
        "duckdb",
        pytest.param("reference", marks=pytest.mark.bigquery),
        pytest.param("emulator", marks=pytest.mark.bigquery),
    ],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    if request.param == "duckdb":
        return DuckDB()
    if request.param == "reference":
        return Reference(request.getfixturevalue("google_sql"))
    return Emulated(request.getfixturevalue("emulated_client"))


@pytest.fixture(scope="module")
def emulated_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bigquery.Client]:
    reason = bigquery_emulator.unavailable(PYTHON)
    if reason:
        pytest.skip(reason)
    with (
        bigquery_emulator.running(str(PYTHON), tmp_path_factory.mktemp("emulator")) as emulator,
        bigquery.Client(
            bigquery_emulator.PROJECT,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": emulator.url},
        ) as client,
    ):
        yield client
