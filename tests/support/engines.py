"""Engines that run SQL over a few rows: the same question to each, with the answer as plain Python values."""

from collections.abc import Mapping
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from support.googlesql import GoogleSql, Row, Table

_ARROW = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "NUMERIC": pa.decimal128(38, 9),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "DATE": pa.date32(),
}


class Engine(Protocol):
    """An engine and the dbt target whose SQL it runs."""

    target: str

    def run(self, sql: str, tables: Mapping[str, Table]) -> list[Row]:
        """The rows of a query over these tables, which are there for this query only."""


class DuckDB:
    """DuckDB in memory, in UTC as the warehouse is."""

    target = "duckdb"

    def __init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("set TimeZone = 'UTC'")

    def run(self, sql: str, tables: Mapping[str, Table]) -> list[Row]:
        for name, table in tables.items():
            self._connection.register(name, _arrow(table))
        columns: list[list[Any]] = [column.to_pylist() for column in self._connection.sql(sql).to_arrow_table().columns]
        for name in tables:
            self._connection.unregister(name)
        return list(zip(*columns, strict=True))


class Reference:
    """The reference executor of GoogleSQL."""

    target = "bigquery"

    def __init__(self, google: GoogleSql) -> None:
        self._google = google

    def run(self, sql: str, tables: Mapping[str, Table]) -> list[Row]:
        return self._google.execute(sql, tables)


def _arrow(table: Table) -> pa.Table:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    arrays = [pa.array(values, _ARROW[kind]) for values, kind in zip(columns, table.columns.values(), strict=True)]
    return pa.table(arrays, names=list(table.columns))
