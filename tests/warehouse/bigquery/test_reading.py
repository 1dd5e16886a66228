"""Questions are bounded by what they would read, before anything is read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.api_core.exceptions import ServiceUnavailable
from support.homes import home

from ingestion.errors import UsageError
from ingestion.settings import Settings
from warehouse.bigquery import reading
from warehouse.bigquery.client import WarehouseUnavailable

_GIB = 1 << 30


@dataclass
class Warehouse:
    """In the place of BigQuery: three rows, for as many bytes as it is told."""

    would_read: int = 0
    error: WarehouseUnavailable | None = None
    error_of_a_page: Exception | None = None
    started: list[tuple[Any, ...]] = field(default_factory=list)

    def bytes_of(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        if self.error:
            raise self.error
        return self.would_read

    def start(self, sql: str, parameters: Sequence[Any], *, purpose: str, limit: int) -> "Rows":
        self.started.append((sql, [(one.type_, one.value) for one in parameters], limit))
        return Rows(self.error_of_a_page)


@dataclass
class Rows:
    error: Exception | None
    schema = (SimpleNamespace(name="symbol"), SimpleNamespace(name="bars"))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from ({"symbol": symbol, "bars": 1} for symbol in "ABC")
        if self.error:
            raise self.error


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    found = Warehouse()

    @contextmanager
    def opened(settings: Settings) -> Iterator[Warehouse]:
        yield found

    monkeypatch.setattr(reading, "opened", opened)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path, target="bigquery", bigquery_query_gb=2.0)


def test_what_would_read_too_much_is_not_run(warehouse: Warehouse, settings: Settings) -> None:
    warehouse.would_read = 3 * _GIB
    with pytest.raises(UsageError, match=r"3\.00 GiB, and 2 GiB are allowed"):
        reading.run_query(settings, "select 1")
    assert warehouse.started == []


def test_more_can_be_allowed_for_one_question(warehouse: Warehouse, settings: Settings) -> None:
    warehouse.would_read = 3 * _GIB
    reading.run_query(settings, "select 1", max_gb=3.0)
    assert [limit for *_, limit in warehouse.started] == [3 * _GIB]


def test_rows_come_with_their_columns_and_no_more_than_asked_for(warehouse: Warehouse, settings: Settings) -> None:
    found = reading.run_query(settings, "select 1", limit=2)
    assert (found.columns, found.rows) == (["symbol", "bars"], [("A", 1), ("B", 1)])


def test_parameters_keep_their_types(warehouse: Warehouse, settings: Settings) -> None:
    reading.run_query(settings, "select ?, ?, ?", parameters=["BTCUSDT", 3, 1.5])
    assert warehouse.started[0][1] == [("STRING", "BTCUSDT"), ("INT64", 3), ("FLOAT64", 1.5)]


def test_what_fails_while_rows_are_fetched_is_told_too(warehouse: Warehouse, settings: Settings) -> None:
    warehouse.error_of_a_page = ServiceUnavailable("try again")
    with pytest.raises(UsageError, match="try again"):
        reading.run_query(settings, "select 1")


def test_what_bigquery_refuses_is_the_users_to_mend(warehouse: Warehouse, settings: Settings) -> None:
    warehouse.error = WarehouseUnavailable("BigQuery refused the query: Unrecognized name: nope", "")
    with pytest.raises(UsageError, match="Unrecognized name: nope"):
        reading.run_query(settings, "select nope")
