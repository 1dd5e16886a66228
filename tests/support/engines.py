"""Engines that run SQL over a few rows: the same question to each, with the answer as plain Python values."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from google.cloud import bigquery

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


class Emulated:
    """The emulator of BigQuery. Tables are written into the query: loading them would take a second each."""

    target = "bigquery"

    def __init__(self, client: bigquery.Client) -> None:
        self._client = client

    def run(self, sql: str, tables: Mapping[str, Table]) -> list[Row]:
        written = ", ".join(f"{name} as ({_written(table)})" for name, table in tables.items())
        rest = sql.strip()
        if written:
            rest = f"with {written}, {rest[4:]}" if rest.lower().startswith("with") else f"with {written} {rest}"
        return [tuple(row.values()) for row in self._client.query(rest).result()]


def _written(table: Table) -> str:
    columns = ", ".join(f"`{name}` {kind.lower()}" for name, kind in table.columns.items())
    kinds = list(table.columns.values())
    rows = ", ".join(f"({', '.join(map(_literal, row, kinds))})" for row in table.rows)
    return f"select * from unnest(array<struct<{columns}>>[{rows}])"


def _literal(value: Any, kind: str) -> str:
    if value is None:
        return "null"
    if kind == "TIMESTAMP":
        return f"timestamp '{value:%Y-%m-%d %H:%M:%S.%f}+00'" if value.year > 999 else _early(value)
    if kind in ("DATE", "NUMERIC"):
        return f"{kind.lower()} '{value}'"
    if kind == "STRING":
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"cast('{float(value)!r}' as float64)" if kind == "FLOAT64" else repr(value)


def _early(value: datetime) -> str:
    return f"timestamp_micros({(value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)})"


def _arrow(table: Table) -> pa.Table:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    arrays = [pa.array(values, _ARROW[kind]) for values, kind in zip(columns, table.columns.values(), strict=True)]
    return pa.table(arrays, names=list(table.columns))
