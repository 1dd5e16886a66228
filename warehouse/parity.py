"""The marts of both engines over the same raw data, compared row for row: keys, values, and a hash of what is exact."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from ingestion.klines import month_window
from ingestion.settings import Settings
from warehouse.bigquery.client import BigQuery, opened
from warehouse.serving import reading

# Largest relative difference of two doubles that count as the same.
TOLERANCE = 1e-9
# List price of on-demand queries, USD per TiB (https://cloud.google.com/bigquery/pricing).
PRICE_PER_TIB = 6.25

KEYS = {
    "market_data_unified": ("symbol", "interval", "open_time"),
    "dim_dates": ("date_day",),
    "dim_hours": ("hour",),
    "dim_symbols": ("symbol",),
    "klines_gaps": ("symbol", "interval", "resumed_at"),
    "klines_reconciliation": ("symbol", "interval", "open_time", "field", "kept_source", "other_source", "other_value"),
}
_COMPUTED = ("sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_middle", "bb_lower")


@dataclass(frozen=True)
class Parity:
    """One mart on both engines: its rows, those whose key only one of them has, those that are unequal, the largest
    relative difference of a double, and a hash of all columns that are not computed by division."""

    mart: str
    rows_duckdb: int
    rows_bigquery: int
    only_duckdb: int
    only_bigquery: int
    unequal: int
    largest_difference: float
    hash_duckdb: str
    hash_bigquery: str

    @property
    def is_equal(self) -> bool:
        return (
            self.rows_duckdb == self.rows_bigquery
            and not (self.only_duckdb or self.only_bigquery or self.unequal)
            and self.hash_duckdb == self.hash_bigquery
        )


@dataclass(frozen=True)
class Estimate:
    """What BigQuery would read for a comparison, and what that costs at list price."""

    bytes: int
    usd: float


def estimate(settings: Settings, start: datetime, end: datetime) -> Estimate:
    """Asked of BigQuery without running anything."""
    with opened(settings) as warehouse:
        read = sum(warehouse.bytes_of(_question(mart, start, end)) for mart in KEYS)
    return Estimate(read, round(read / (1 << 40) * PRICE_PER_TIB, 4))


def compare_engines(settings: Settings, start: datetime, end: datetime) -> Iterator[Parity]:
    """Compare every mart between what this home has published and what BigQuery has, the bars of `[start, end)`.

    Raises ConfigurationError when one of them has not been built.
    """
    with opened(settings) as warehouse, reading(settings.model_copy(update={"target": "duckdb"})) as published:
        for mart in KEYS:
            parts = [_compare(warehouse, published, mart, *window) for window in _windows(mart, start, end)]
            yield _added(parts)


def _windows(mart: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Bars month by month, so that neither side is in memory whole."""
    if mart != "market_data_unified":
        return [(start, end)]
    return [(max(month.start, start), min(month.end, end)) for month in month_window((start, end))]


def _question(mart: str, start: datetime, end: datetime, instant: str = "timestamp") -> str:
    """In GoogleSQL; DuckDB's type of an instant is timestamptz."""
    if mart != "market_data_unified":
        return f"select * from {mart}"
    return (
        f"select * from {mart} where open_time >= cast('{start.isoformat()}' as {instant}) "
        f"and open_time < cast('{end.isoformat()}' as {instant})"
    )


def _compare(
    warehouse: BigQuery, published: duckdb.DuckDBPyConnection, mart: str, start: datetime, end: datetime
) -> Parity:
    ours: Any = published.sql(_question(mart, start, end, "timestamptz")).to_arrow_table()
    theirs = warehouse.read(_question(mart, start, end), purpose=f"parity of {mart}")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("ours", ours)
        connection.register("theirs", theirs.select(ours.schema.names))
        return _judge(connection, mart, ours.schema)


def _judge(connection: duckdb.DuckDBPyConnection, mart: str, schema: Any) -> Parity:
    key = KEYS[mart]
    doubles = [field.name for field in schema if pa.types.is_float64(field.type)]
    exact = [name for name in schema.names if name not in (*key, *doubles)]
    same_key = " and ".join(f'ours."{name}" is not distinct from theirs."{name}"' for name in key)
    differs = [f'ours."{name}" is distinct from theirs."{name}"' for name in exact]
    relative = [_relative(name) for name in doubles]
    differs += [f"coalesce({one} > {TOLERANCE}, true)" for one in relative]
    largest = f"max(greatest({', '.join(relative)}))" if relative else "max(0)"
    found = connection.execute(
        f"""select
            count(*) filter (where theirs.here is null),
            count(*) filter (where ours.here is null),
            count(*) filter (where ours.here and theirs.here and ({" or ".join(differs) or "false"})),
            coalesce({largest} filter (where ours.here and theirs.here), 0)
        from (select *, true as here from ours) as ours
        full join (select *, true as here from theirs) as theirs on {same_key}"""
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate has one row
    hashed = [name for name in schema.names if name not in _COMPUTED]
    ours, theirs = (_hash(connection, side, schema, hashed) for side in ("ours", "theirs"))
    told: tuple[Any, ...] = (mart, *_counts(connection), *found, ours, theirs)
    return Parity(*told)


def _relative(name: str) -> str:
    """The relative difference of two doubles; 0 where both are NULL, NULL where one is."""
    one, other = f'ours."{name}"', f'theirs."{name}"'
    return (
        f"case when {one} is null and {other} is null then 0 when {one} = {other} then 0 "
        f"else abs({one} - {other}) / greatest(abs({one}), abs({other})) end"
    )


def _counts(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    found = connection.execute("select (select count(*) from ours), (select count(*) from theirs)").fetchone()
    assert found is not None  # noqa: S101 - an aggregate has one row
    return int(found[0]), int(found[1])


def _hash(connection: duckdb.DuckDBPyConnection, side: str, schema: pa.Schema, names: Sequence[str]) -> str:
    """Of the rows in any order: the exclusive or of a hash of each, which is of values as text of the same type."""
    types = {name: schema.field(name).type for name in names}
    values = ", ".join(f"coalesce(({_canonical(name, types[name])})::varchar, '')" for name in names)
    found = connection.execute(f"select bit_xor(md5_number(concat_ws('|', {values}))) from {side}").fetchone()
    return f"{found[0]:x}" if found and found[0] is not None else "0"


def _canonical(name: str, kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return f'epoch_us("{name}")'
    return f'"{name}"::decimal(38, 9)' if pa.types.is_decimal(kind) else f'"{name}"'


def _added(parts: Sequence[Parity]) -> Parity:
    """Parts of one mart as one: the hashes of disjoint rows combine as those of rows do."""

    def combined(hashes: Sequence[str]) -> str:
        total = 0
        for one in hashes:
            total ^= int(one, 16)
        return f"{total:x}"

    counts = ("rows_duckdb", "rows_bigquery", "only_duckdb", "only_bigquery", "unequal")
    told: tuple[Any, ...] = (
        parts[0].mart,
        *(sum(getattr(part, name) for part in parts) for name in counts),
        max(part.largest_difference for part in parts),
        combined([part.hash_duckdb for part in parts]),
        combined([part.hash_bigquery for part in parts]),
    )
    return Parity(*told)
