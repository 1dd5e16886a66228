"""Micro-batches of messages that are no klines, come twice, late and in disorder: the others land, once and at once."""

import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_time import FakeTime
from support.streamed import numbered, rank, rows_of

from ingestion import microbatch
from ingestion.bus.dead_letters import borrowed, replay
from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, Message, Received
from ingestion.klines import DECIMAL_COLUMNS
from ingestion.messages import KlineMessage, encode
from ingestion.microbatch import drain, finish, land, read
from ingestion.settings import Settings, load_settings
from ingestion.stream_zone import StreamZone, one_row_per_bar

GOOD, POISON, CORRECTED = 20_000, 1_000, 100
DAY, MINUTE = 86_400_000_000, 60_000_000


CHOSEN = load_settings(symbols="BTCUSDT,ETHUSDT", interval="1m")


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    return CHOSEN.model_copy(update={"home": tmp_path / "home"})


@pytest.fixture
def zone(chosen: Settings) -> StreamZone:
    return StreamZone(chosen.raw_root)


def tables(zone: StreamZone) -> Iterator[pa.Table]:
    for file in zone.files():
        rows = zone.read(file)
        assert rows.select(["symbol", "open_time"]).group_by(["symbol", "open_time"]).aggregate([]).num_rows == len(
            rows
        )
        yield rows


def without_event_time(bars: Iterable[KlineMessage]) -> dict[tuple[str, str, int], KlineMessage]:
    return {bar.key: replace(bar, event_time=0) for bar in bars}


# --- draining --------------------------------------------------------------------------------------------------------


def test_a_batch_waits_for_the_bars_of_the_other_symbols(chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microbatch, "LINGER", 20.0)
    monkeypatch.setattr(microbatch, "LINGER_IN_ALL", 20.0)
    first, second = numbered(2)
    with LocalBus(chosen.bus_path) as bus:
        bus.publish(KLINES, [encode(first)])
        later = threading.Timer(0.5, lambda: bus.publish(KLINES, [encode(second)]))
        later.start()
        batch = drain(bus, chosen, 0)
        later.join()
    assert batch is not None
    assert {kline.symbol for kline in batch.klines} == {"BTCUSDT", "ETHUSDT"}


def test_a_batch_that_has_a_bar_of_each_symbol_does_not_wait(chosen: Settings) -> None:
    waits: list[float] = []
    with LocalBus(chosen.bus_path) as bus:
        bus.publish(KLINES, [encode(one) for one in numbered(2)])
        pull = bus.pull
        with mock.patch.object(
            bus, "pull", lambda *args, wait, **more: waits.append(wait) or pull(*args, wait=wait, **more)
        ):
            drain(bus, chosen, 0)
    assert waits == [0, 0]


def test_a_batch_waits_for_a_symbol_that_stays_silent_only_so_long(
    chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others send one bar after the other, each within LINGER."""
    monkeypatch.setattr(microbatch, "LINGER_IN_ALL", 0.0)
    monkeypatch.setattr(microbatch, "LINGER", 20.0)
    with LocalBus(chosen.bus_path) as bus:
        bus.publish(KLINES, [encode(numbered(1)[0])])
        batch = drain(bus, chosen, 0)
    assert batch is not None
    assert len(batch.klines) == 1


# --- poison ----------------------------------------------------------------------------------------------------------


def field(name: str, value: Callable[[random.Random], Any]) -> Callable[[random.Random, dict[str, Any]], bytes]:
    """A message of which one field is another value."""
    return lambda chance, fields: json.dumps(fields | {name: value(chance)}).encode()


def priced(value: Callable[[random.Random], Any]) -> Callable[[random.Random, dict[str, Any]], bytes]:
    """A message of which a price or volume is another value."""
    return lambda chance, fields: json.dumps(fields | {chance.choice(DECIMAL_COLUMNS): value(chance)}).encode()


SYMBOLS = ["DOGEUSDT", "btcusdt", "../../etc", "'; drop", "\ud800", 7, json.loads("[" * 400 + "]" * 400)]
TIMES = [0, -1, 1_717_200_000_000, 10**17, 1.5, "1717200000000000"]
KINDS: list[Callable[[random.Random, dict[str, Any]], bytes]] = [
    lambda chance, fields: json.dumps(fields).encode()[: chance.randrange(400)],
    lambda chance, fields: chance.randbytes(chance.randrange(1, 600)),
    lambda chance, fields: chance.choice([b"[]", b"null", b"7", b'"kline"', b"", b"NaN"]),
    lambda chance, fields: b"[" * 4000 + b"]" * 4000,
    lambda chance, fields: json.dumps(fields | {f"x{chance.random()}": 1}).encode(),
    lambda chance, fields: json.dumps(dict(chance.sample(sorted(fields.items()), 16))).encode(),
    lambda chance, fields: json.dumps(fields | {"trades": 7}).encode().replace(b": 7,", b": " + b"7" * 5000 + b","),
    lambda chance, fields: json.dumps(fields | {"symbol": "A" * chance.randrange(10_000, 100_000)}).encode(),
    priced(lambda chance: chance.choice([float("nan"), float("inf"), "NaN", "Infinity"])),
    priced(lambda chance: chance.choice([f"1{30 * '0'}.0", "1e30", 10**30])),
    priced(lambda chance: chance.choice([1.5, None, "", "1,5", "0x10", "\u0661\u0662\u0663.5"])),
    priced(lambda chance: f"-{chance.randrange(1, 99)}.5"),
    field("high", lambda chance: "0.00000001"),
    field("low", lambda chance: "0"),
    field("taker_buy_base_volume", lambda chance: "10.00000001"),
    field("trades", lambda chance: chance.choice([-1, 1.5, True, None, "7", 2**63, 10**30])),
    field("schema", lambda chance: chance.choice([0, 2, "1", None, True])),
    field("symbol", lambda chance: chance.choice(SYMBOLS)),
    field("interval", lambda chance: chance.choice(["5m", "1w", "2m", "", None])),
    field("source", lambda chance: chance.choice(["archive_monthly", "", None])),
    field("open_time", lambda chance: chance.choice(TIMES)),
    field("event_time", lambda chance: 1_717_200_000_000_000),
    field("close_time", lambda chance: 4_000_000_000_000_000),
]


def poisonous(chance: random.Random, good: tuple[KlineMessage, ...]) -> list[bytes]:
    """As much of each kind as of the others, and one message of 64 MiB."""
    fields = [{"schema": 1, **asdict(chance.choice(good))} for _ in range(POISON - 1)]
    return [KINDS[number % len(KINDS)](chance, one) for number, one in enumerate(fields)] + [b"[" * (64 << 20)]


def process(bus: LocalBus, chosen: Settings, zone: StreamZone) -> int:
    """All that is due; returns how many batches there were."""
    batches = 0
    while batch := drain(bus, chosen, 0):
        land(batch, zone)
        finish(bus, batch)
        batches += 1
    return batches


def test_poison_among_good_messages_is_put_aside_with_its_reason_and_holds_up_none(
    chosen: Settings, zone: StreamZone
) -> None:
    chance, time = random.Random(13), FakeTime(datetime(2024, 7, 1, tzinfo=UTC).timestamp())
    good, corrections = numbered(GOOD), numbered(GOOD + CORRECTED)[GOOD:]
    poison = poisonous(chance, good)
    sent = [*map(encode, good), *map(Message, poison)]
    chance.shuffle(sent)
    with LocalBus(chosen.bus_path, clock=time.clock) as bus:
        bus.publish(KLINES, sent)
        process(bus, chosen, zone)
        # No time has passed: the good ones are done, at their first delivery, while the poison waits for another one.
        assert rows_of(tables(zone)) == without_event_time(good)
        assert bus.backlog(MICROBATCH).messages == POISON
        files = zone.files()
        for _ in range(4):
            time.sleep(600)
            process(bus, chosen, zone)
        assert bus.backlog(MICROBATCH).messages == 0
        with borrowed(bus, 2 * POISON) as letters:
            assert sorted(letter.received.message.data for letter in letters) == sorted(poison)
            assert {reason_kind(letter.reason) for letter in letters} == set(REASONS.values())
            for letter, correction in zip(letters, corrections, strict=False):
                replay(bus, letter, encode(correction))
        assert zone.files() == files
        process(bus, chosen, zone)
        assert bus.backlog(DEAD_LETTERS_SUBSCRIPTION).messages == POISON - CORRECTED
    found = rows_of(zone.read(file) for file in zone.files() if file not in files)
    assert found == without_event_time(corrections)


def test_what_a_flood_of_poison_costs_does_not_grow_with_its_reasons(chosen: Settings) -> None:
    """A transaction for each of 5,000 reasons would hold up the next batch for seconds."""
    with LocalBus(chosen.bus_path) as bus:
        bus.publish(KLINES, [Message(b'{"schema": %d}' % number) for number in range(2, 5002)])
        batch = drain(bus, chosen, 0)
        assert batch is not None
        assert len({reason for _, reason in batch.refused}) == 5000
        transactions: list[str] = []
        bus._db.set_trace_callback(lambda text: transactions.append(text) if text.startswith("begin") else None)
        finish(bus, batch)
    assert len(transactions) == 5


REASONS = {
    "The message is no kline": "no kline",
    "It breaks the rule": "breaks a rule",
    "is not among KLINEHOUSE_SYMBOLS": "of another home",
    "this home's is": "of another home",
    "before the bar closed": "at another time",
    "after the end of a": "at another time",
}


def reason_kind(reason: str) -> str:
    return next(kind for text, kind in REASONS.items() if text in reason)


def received(*messages: Message) -> list[Received]:
    at = datetime(2024, 7, 1, tzinfo=UTC)
    return [Received(f"{number}:1", str(number), message, at, 1) for number, message in enumerate(messages)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
# What the pattern of a decimal lets through in any script, too.
DECIMALS = st.from_regex(r"-?\d{1,21}(\.\d{0,9})?", fullmatch=True)


@settings(max_examples=300)
@given(data=st.data(), value=JSON | DECIMALS)
def test_whatever_a_message_says_it_is_read_or_refused_and_the_others_are_read(
    data: st.DataObject, value: object
) -> None:
    one, other, third = numbered(3)
    fields = {"schema": 1, **asdict(one)}
    name = data.draw(st.sampled_from([*fields, "unknown"]))
    changed = Message(json.dumps(fields | {name: value}).encode())
    batch = read(received(encode(other), changed, encode(third)), CHOSEN)
    assert {other.key, third.key} <= rows_of([batch.rows]).keys()
    assert [reason for _, reason in batch.refused] == [] or len(batch.accepted) == 2
    assert len(batch.accepted) + len(batch.refused) == 3


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    batch = read(received(Message(data)), CHOSEN)
    assert (len(batch.accepted), len(batch.refused), batch.rows.num_rows) == (0, 1, 0)
    assert batch.refused[0][1]


# --- twice, late, in disorder ----------------------------------------------------------------------------------------


def disordered(chance: random.Random, bars: Sequence[KlineMessage]) -> list[KlineMessage]:
    """Messages in the order in which they come: 30 % of the bars twice (of those some corrected, some by REST), 20 % up
    to 10 minutes later than they should, 5 % up to 7 days."""
    copies = []
    for bar in chance.sample(bars, len(bars) * 3 // 10):
        later = replace(bar, received_time=bar.received_time + chance.randrange(1, 10 * MINUTE))
        corrected, by_rest = replace(later, close=bar.low), replace(later, close=bar.high, source="rest")
        copies.append(chance.choice([bar, later, corrected, by_rest]))
    coming = [(bar.received_time + delay(chance), chance.random(), bar) for bar in [*bars, *copies]]
    return [bar for _, _, bar in sorted(coming, key=lambda one: one[:2])]


def delay(chance: random.Random) -> int:
    which = chance.random()
    return chance.randrange(7 * DAY) if which < 0.05 else chance.randrange(10 * MINUTE) if which < 0.25 else 0


@pytest.mark.parametrize("seed", range(2))
def test_bars_that_come_twice_late_and_in_disorder_are_there_once(
    chosen: Settings, zone: StreamZone, seed: int
) -> None:
    """In batches of any size, and with files put together from time to time."""
    chance = random.Random(seed)
    coming = disordered(chance, numbered(10_000))
    at = 0
    while at < len(coming):
        size = chance.choice([1, 10, 100, 1000])
        land(read(received(*map(encode, coming[at : at + size])), chosen), zone)
        at += size
        if chance.random() < 0.05:
            day = chance.choice(zone.files()).day
            files = [file for file in zone.files() if file.day == day]
            zone.replace(files, one_row_per_bar(map(zone.read, files)))
    expected: dict[tuple[str, str, int], KlineMessage] = {}
    for bar in coming:
        expected[bar.key] = min(expected.get(bar.key, bar), bar, key=rank)
    assert rows_of(tables(zone)) == without_event_time(expected.values())
