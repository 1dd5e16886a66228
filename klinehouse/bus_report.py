"""How messages and dead letters are shown."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from ingestion.bus.dead_letters import DeadLetter
from ingestion.bus.port import Message, Received
from ingestion.messages import KlineMessage
from klinehouse.output import cell, out, print_table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LINE = "{:<8}  {:<12} {:<4} {:<16}  {:>14} {:>14} {:>14} {:>14}  {:>16} {:>8}  {:<6} {:>8}"


def header() -> str:
    return _LINE.format(
        *("received", "symbol", "int", "open time"),
        *("open", "high", "low", "close", "volume"),
        *("trades", "source"),
        "lag",
    )


def line(kline: KlineMessage) -> str:
    """`lag` is from the end of the bar to its arrival at the collector."""
    lag = (kline.received_time - kline.close_time) / 1e6
    prices = (f"{float(value):.8g}" for value in (kline.open, kline.high, kline.low, kline.close, kline.volume))
    return _LINE.format(
        _instant(kline.received_time).strftime("%H:%M:%S"),
        kline.symbol,
        kline.interval,
        cell(_instant(kline.open_time)),
        *prices,
        f"{kline.trades:,}",
        kline.source,
        f"{lag:.2f} s",
    )


def kline_json(received: Received, kline: KlineMessage) -> dict[str, Any]:
    return {"message_id": received.message_id, "published_at": received.published_at, **asdict(kline)}


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.received.message_id,
        "dead_since": letter.received.published_at,
        "first_published": letter.first_published,
        "attempts": letter.attempts,
        "subscription": letter.subscription,
        "reason": letter.reason,
        "attributes": dict(letter.original.attributes),
        "bytes": len(letter.original.data),
    }


def data_json(message: Message) -> Mapping[str, str]:
    """The data as text; in base64 where it is none."""
    try:
        return {"data": message.data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(message.data).decode()}


def print_letters(letters: Sequence[DeadLetter]) -> None:
    rows = [
        [
            letter.received.message_id,
            letter.received.published_at,
            letter.attempts,
            letter.original.attributes.get("symbol"),
            letter.original.attributes.get("interval"),
            letter.reason,
        ]
        for letter in letters
    ]
    print_table("Dead letters, oldest first", ["id", "dead since", "attempts", "symbol", "interval", "reason"], rows)


def print_letter(letter: DeadLetter) -> None:
    said = letter_json(letter)
    attributes = said.pop("attributes")
    for name, value in {**said, **{f"attribute {name}": value for name, value in attributes.items()}}.items():
        out.print(f"{name:<20}  {value if isinstance(value, int) else cell(value)}", markup=False, soft_wrap=True)
    for name, text in data_json(letter.original).items():
        out.print(f"{name:<20}  {text}", markup=False, soft_wrap=True)


def _instant(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)
