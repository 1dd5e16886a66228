"""Engines that the project's SQL runs on."""

import pytest
from support.engines import DuckDB, Engine, Reference


@pytest.fixture(scope="module", params=["duckdb", pytest.param("reference", marks=pytest.mark.bigquery)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    if request.param == "duckdb":
        return DuckDB()
    return Reference(request.getfixturevalue("google_sql"))
