"""A micro-batch: what waits on the bus, decoded and checked, landed as one file a day, and only then acknowledged.

Nothing here knows the warehouse. Between `land` and `finish` the caller makes the bars visible; killed anywhere, the
messages come again, and everything done with them twice changes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pyarrow as pa

from ingestion.bus.port import MICROBATCH, Bus, Received
from ingestion.grid import Window, instant
from ingestion.klines import DECIMAL_COLUMNS, INSTANT, KLINE_SCHEMA, grid_micros, no_klines
from ingestion.messages import KlineMessage, NoKline, decode
from ingestion.row_rules import integers, split_broken
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone, one_row_per_bar

MAX_MESSAGES = 5_000
MAX_BYTES = 8 << 20
# Bars of all symbols close at the same instant: until each has sent one, the batch waits so long for the next, and so
# long in all.
LINGER = 0.1
LINGER_IN_ALL = 0.3
# Stretches of bars that lie closer together are computed as one: a run costs more than the bars between them.
JOINED = timedelta(days=8)


@dataclass(frozen=True)
class Stretch:
    """Bars that were landed: the window in which they open and close, and their symbols."""

    window: Window
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Messages leased together. `rows` (KLINE_SCHEMA) has each bar once; `refused` are no klines, and why."""

    accepted: tuple[Received, ...]
    refused: tuple[tuple[Received, str], ...]
    rows: pa.Table
    klines: tuple[KlineMessage, ...] = field(repr=False, default=())

    @property
    def ack_ids(self) -> list[str]:
        return [received.ack_id for received in (*self.accepted, *(received for received, _ in self.refused))]


def drain(bus: Bus, settings: Settings, wait: float) -> Batch | None:
    """Lease what is there, or what comes within `wait` seconds; None when nothing does."""
    received = bus.pull(MICROBATCH, max_messages=MAX_MESSAGES, max_bytes=MAX_BYTES, wait=wait)
    if not received:
        return None
    until = time.monotonic() + LINGER_IN_ALL
    while len(received) < MAX_MESSAGES:
        room = MAX_BYTES - sum(len(one.message.data) for one in received)
        missing = len(received) < len(settings.symbols)
        linger = max(min(LINGER, until - time.monotonic()), 0) if missing else 0
        more = room > 0 and bus.pull(MICROBATCH, max_messages=MAX_MESSAGES - len(received), max_bytes=room, wait=linger)
        if not more:
            break
        received += more
    return read(received, settings)


def read(received: Sequence[Received], settings: Settings) -> Batch:
    """Decode and check messages; what is no closed kline of these series is refused, and the others go on."""
    good: list[tuple[Received, KlineMessage]] = []
    refused: list[tuple[Received, str]] = []
    for one in received:
        try:
            kline = decode(one.message)
        except NoKline as error:
            refused.append((one, error.message))
            continue
        reason = _foreign(kline, settings)
        if reason:
            refused.append((one, reason))
        else:
            good.append((one, kline))
    if not good:
        return Batch((), tuple(refused), no_klines())
    return _checked(good, refused)


def _foreign(kline: KlineMessage, settings: Settings) -> str | None:
    """Why a kline is not one that this warehouse takes."""
    if kline.symbol not in settings.symbols:
        return f"{kline.symbol} is not among KLINEHOUSE_SYMBOLS."
    if kline.interval != settings.interval:
        return f"Its interval is {kline.interval}, this home's is {settings.interval}."
    if kline.event_time < kline.close_time:
        return f"It was sent at {instant(kline.event_time)}, before the bar closed at {instant(kline.close_time)}."
    length = grid_micros(kline.interval) or 0
    if kline.close_time >= kline.open_time + length:
        return f"It closes at {instant(kline.close_time)}, after the end of a {kline.interval} bar."
    return None


def _checked(good: list[tuple[Received, KlineMessage]], refused: list[tuple[Received, str]]) -> Batch:
    table = to_rows([kline for _, kline in good])
    kept, broken = split_broken(table.append_column("position", pa.array(range(len(good)), pa.int64())))
    positions = integers(kept["position"]).tolist()
    wrong = zip(integers(broken.rows["position"]).tolist() if broken.reasons else (), broken.reasons, strict=True)
    refused += [(good[position][0], f"It breaks the rule {rule}.") for position, rule in wrong]
    rows = one_row_per_bar([kept.drop_columns("position")]) if positions else no_klines()
    return Batch(
        tuple(good[position][0] for position in positions),
        tuple(refused),
        rows,
        tuple(good[position][1] for position in positions),
    )


def to_rows(klines: Sequence[KlineMessage]) -> pa.Table:
    """Messages as rows of the raw zone. They are ingested when the collector had them, so that the same message always
    makes the same row."""
    columns = {
        name: pa.array([getattr(kline, name) for kline in klines], pa.string()).cast(KLINE_SCHEMA.field(name).type)
        for name in DECIMAL_COLUMNS
    }
    columns |= {name: pa.array([getattr(kline, name) for kline in klines]) for name in ("symbol", "interval", "source")}
    columns |= {
        name: pa.array([getattr(kline, field) for kline in klines], pa.int64()).cast(INSTANT)
        for name, field in (
            *(("open_time", "open_time"), ("close_time", "close_time")),
            ("ingested_at", "received_time"),
        )
    }
    columns["trades"] = pa.array([kline.trades for kline in klines], pa.int64())
    return pa.table([columns[name] for name in KLINE_SCHEMA.names], schema=KLINE_SCHEMA)


def land(batch: Batch, zone: StreamZone) -> None:
    """Write the batch to the raw zone, durably."""
    if batch.rows.num_rows:
        zone.write(batch.rows)


def stretches(rows: pa.Table) -> list[Stretch]:
    """Where rows lie: bars less than JOINED apart are one stretch."""
    bars = sorted(
        (opened, opened + (grid_micros(interval) or 0), symbol)
        for symbol, interval, opened in zip(
            rows["symbol"].to_pylist(),
            rows["interval"].to_pylist(),
            integers(rows["open_time"]).tolist(),
            strict=True,
        )
    )
    found: list[Stretch] = []
    for opened, end, symbol in bars:
        window = Window(instant(opened), instant(end))
        if found and window.start - found[-1].window.end <= JOINED:
            last = found[-1]
            joined = Window(last.window.start, max(last.window.end, window.end))
            symbols = last.symbols if symbol in last.symbols else (*last.symbols, symbol)
            found[-1] = replace(last, window=joined, symbols=symbols)
        else:
            found.append(Stretch(window, (symbol,)))
    return found


def around(one: Window | None, other: Window) -> Window:
    """The smallest window that holds both."""
    return other if one is None else Window(min(one.start, other.start), max(one.end, other.end))


def finish(bus: Bus, batch: Batch) -> None:
    """Acknowledge what is visible now, and give back what was refused: after its attempts it is a dead letter."""
    bus.acknowledge(MICROBATCH, [received.ack_id for received in batch.accepted])
    bus.reject(MICROBATCH, batch.refused)
