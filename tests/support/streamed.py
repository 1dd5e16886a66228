"""Bars as they come by stream: messages of them, and homes that have grown by them."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingestion.grid import micros
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA
from ingestion.messages import KlineMessage
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
