"""Engines that the project's SQL runs on."""

from collections.abc import Iterator

import pytest
from support import googlesql
from support.engines import DuckDB, Engine, Reference


@pytest.fixture(scope="session")
def google_sql() -> Iterator[googlesql.GoogleSql]:
    """Google's analyzer and reference executor of BigQuery's SQL."""
    reason = googlesql.unavailable()
    if reason:
        pytest.skip(reason)
    with googlesql.running() as google:
        yield google


@pytest.fixture(scope="module", params=["duckdb", pytest.param("reference", marks=pytest.mark.bigquery)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    if request.param == "duckdb":
        return DuckDB()
    return Reference(request.getfixturevalue("google_sql"))
