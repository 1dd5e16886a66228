"""Bars as they come by stream: messages of them, and homes that have grown by them."""

import functools
import shutil
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingestion.grid import micros
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA
from ingestion.messages import KlineMessage
from ingestion.provenance import SOURCES
from ingestion.settings import Settings


def streamed(rows: pa.Table, source: str = "stream") -> pa.Table:
    """The same bars as the stream tells them."""
    told = [row | {"source": source, "ingested_at": row["close_time"]} for row in rows.to_pylist()]
    return pa.Table.from_pylist(told, schema=KLINE_SCHEMA)


def messages(rows: pa.Table) -> list[KlineMessage]:
    """A message of each row, sent 5 ms after its close and received 10 ms after that."""
    return [_message(row) for row in rows.to_pylist()]


def _message(row: dict[str, Any]) -> KlineMessage:
    sent = row["close_time"] + timedelta(milliseconds=5)
    return KlineMessage(
        symbol=row["symbol"],
        interval=row["interval"],
        open_time=micros(row["open_time"]),
        close_time=micros(row["close_time"]),
        **{name: str(row[name]) for name in DECIMAL_COLUMNS},
        trades=row["trades"],
        source="rest" if row["source"] == "rest" else "stream",
        event_time=micros(sent),
        received_time=micros(sent + timedelta(milliseconds=10)),
    )


def between(rows: pa.Table, first: int, last: int) -> pa.Table:
    """Bars by their positions in each series: `[first, last)`."""
    return pa.concat_tables(part.slice(first, last - first) for part in by_symbol(rows))


def by_symbol(rows: pa.Table) -> Sequence[pa.Table]:
    symbols = rows["symbol"].to_pylist()
    return [rows.take([i for i, symbol in enumerate(symbols) if symbol == wanted]) for wanted in dict.fromkeys(symbols)]


def copied_raw_zone(settings: Settings, home: Path) -> Settings:
    """Another home with the same raw zone and nothing else."""
    shutil.copytree(settings.home / "raw", home / "raw")
    return settings.model_copy(update={"home": home})


@functools.cache
def numbered(count: int, symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT")) -> tuple[KlineMessage, ...]:
    """So many bars of a minute, of each symbol in turn, in the order in which they close."""
    start, minute = 1_717_200_000_000_000, 60_000_000  # 2024-06-01
    found = []
    for number in range(count):
        opened, price = start + number // len(symbols) * minute, 100 + number % 997
        closed = opened + minute - 1000
        prices = (price, price + 2, price - 1, price + 1, 10, 10 * price, 4, 4 * price)
        found.append(
            KlineMessage(
                symbol=symbols[number % len(symbols)],
                interval="1m",
                open_time=opened,
                close_time=closed,
                **{name: f"{value}.00000000" for name, value in zip(DECIMAL_COLUMNS, prices, strict=True)},
                trades=number,
                source="stream",
                event_time=closed + 5000,
                received_time=closed + 15_000,
            )
        )
    return tuple(found)


def rows_of(tables: Iterable[pa.Table]) -> dict[tuple[str, str, int], KlineMessage]:
    """Each bar of several files as the message that staging takes: the most trusted source's, of those the latest.

    Found without the project's own code for it. `event_time`, which no file has, is 0.
    """
    found: dict[tuple[str, str, int], KlineMessage] = {}
    for table in tables:
        texts = {name: table[name].to_pylist() for name in ("symbol", "interval", "trades", "source")}
        decimals = {name: [f"{value:f}" for value in table[name].to_pylist()] for name in DECIMAL_COLUMNS}
        times = {name: table[name].cast(pa.int64()).to_pylist() for name in ("open_time", "close_time", "ingested_at")}
        columns = texts | decimals | times
        columns["received_time"], columns["event_time"] = columns.pop("ingested_at"), [0] * table.num_rows
        for values in zip(*columns.values(), strict=True):
            bar = KlineMessage(**dict(zip(columns, values, strict=True)))
            found[bar.key] = min(found.get(bar.key, bar), bar, key=rank)
    return found


def rank(bar: KlineMessage) -> tuple[int, int]:
    """Of two messages of a bar the lower one counts."""
    return SOURCES.index(bar.source), -bar.received_time
