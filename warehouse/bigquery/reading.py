"""Questions to the tables of `crypto_analytics`, bounded by what they would read."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.cloud import bigquery
from google.cloud.bigquery import ScalarQueryParameter

from ingestion.errors import UsageError
from ingestion.settings import Settings
from warehouse.bigquery.client import ANALYTICS, WarehouseUnavailable, explained, opened
from warehouse.query_result import QueryResult

_GIB = 1 << 30
_TYPES = {str: "STRING", int: "INT64", float: "FLOAT64", datetime: "TIMESTAMP"}


def run_query(
    settings: Settings,
    sql: str,
    limit: int | None = None,
    parameters: Sequence[Any] = (),
    max_gb: float | None = None,
) -> QueryResult:
    """Run one query in GoogleSQL, its parameters written as `?`; raises UsageError when it would read more than
    `max_gb` GiB (KLINEHOUSE_BIGQUERY_QUERY_GB if that is None), and with what BigQuery says of it.

    Tables can be named without their dataset. At most `limit` rows come back.
    """
    most = int((settings.bigquery_query_gb if max_gb is None else max_gb) * _GIB)
    given = [ScalarQueryParameter(None, _TYPES.get(type(value), "STRING"), value) for value in parameters]
    with opened(settings) as warehouse:
        try:
            would_read = warehouse.bytes_of(sql, given)
            if would_read > most:
                raise UsageError(
                    f"The query would read {would_read / _GIB:.2f} GiB, and {most / _GIB:g} GiB are allowed.",
                    "Name the time by open_time and the symbol, or allow more with --max-gb.",
                )
            with explained("the query"):
                return _rows(warehouse.start(sql, given, purpose="query", limit=most), limit)
        except WarehouseUnavailable as error:
            raise UsageError(error.message, "docs/data-dictionary.md lists the tables and their columns.") from error


def _rows(found: bigquery.table.RowIterator, limit: int | None) -> QueryResult:
    rows: list[tuple[Any, ...]] = []
    for row in found:
        if limit is not None and len(rows) >= limit:
            break
        rows.append(tuple(row.values()))
    return QueryResult([field.name for field in found.schema], rows)


def bars_in_tables(settings: Settings) -> int:
    """Rows of the main table, as its metadata tell; nothing is read."""
    with opened(settings) as warehouse:
        if not warehouse.has_table(ANALYTICS, "market_data_unified"):
            return 0
        return int(warehouse.client.get_table(f"{warehouse.project}.{ANALYTICS}.market_data_unified").num_rows or 0)
