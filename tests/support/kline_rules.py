"""Row by row in plain Python what `ingestion.row_rules` and `ingestion.binance.wire` do column by column."""

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

AMOUNTS = ("volume", "quote_volume", "taker_buy_base_volume", "taker_buy_quote_volume", "trades")


def broken_rules(row: Row) -> list[str]:
    """The rules that one row breaks, in no particular order."""
    rules = {
        "open_time < close_time": row["open_time"] < row["close_time"],
        "low <= open": row["low"] <= row["open"],
        "low <= close": row["low"] <= row["close"],
        "open <= high": row["open"] <= row["high"],
        "close <= high": row["close"] <= row["high"],
        "low > 0": row["low"] > 0,
        "taker_buy_base_volume <= volume": row["taker_buy_base_volume"] <= row["volume"],
        "taker_buy_quote_volume <= quote_volume": row["taker_buy_quote_volume"] <= row["quote_volume"],
    } | {f"{name} >= 0": row[name] >= 0 for name in AMOUNTS}
    return [rule for rule, holds in rules.items() if not holds]


def settled(rows: Iterable[Row]) -> tuple[list[Row], list[Row], int]:
    """One row per open time, the last one; the earlier ones that differ from it; and how many are equal to it."""
    rows = list(rows)
    last = {row["open_time"]: row for row in rows}
    earlier = [row for row in rows if row is not last[row["open_time"]]]
    differ = [row for row in earlier if row != last[row["open_time"]]]
    return [last[time] for time in sorted(last)], differ, len(earlier) - len(differ)
