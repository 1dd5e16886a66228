"""What one connection makes of the frames that it hears, good ones and poison."""

import json
import random
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from ingestion.binance.stream import StreamLost
from ingestion.collector.connections import Connection
from ingestion.collector.metrics import Metrics
from tests.support.live import BTC, MINUTE, START, combined, kline_event, until

GOOD, POISON = 20_000, 1_000
PRICES = "ohlcvqVQ"

KINDS: list[Callable[[random.Random, dict[str, Any]], Any]] = [
    lambda chance, event: event | {"k": event["k"] | {chance.choice(PRICES): float("nan")}},
    lambda chance, event: event | {"k": event["k"] | {chance.choice(PRICES): chance.choice(["NaN", "1e30", "", None])}},
    lambda chance, event: event | {"k": event["k"] | {chance.choice(PRICES): f"1{30 * '0'}.0"}},
    lambda chance, event: event | {"k": event["k"] | {chance.choice(PRICES): "\u0661\u0662\u0663.5"}},
    lambda chance, event: event | {"k": event["k"] | {"n": chance.choice([-1, 1.5, True, None, 2**63])}},
    lambda chance, event: event | {"k": event["k"] | {"s": chance.choice(["ETHUSDT", "../../etc", "\ud800", 7, []])}},
    lambda chance, event: event | {"k": event["k"] | {"t": chance.choice([0, -1, 10**17, 1.5, event["k"]["t"] + 1])}},
    lambda chance, event: event | {"k": event["k"] | {"x": chance.choice([None, 1, "true"])}},
    lambda chance, event: event | {"E": event["k"]["t"] - 1},
    lambda chance, event: event | {"k": chance.choice([None, [], 7])},
    lambda chance, event: {"e": chance.choice(["trade", "24hrTicker", None])},
    lambda chance, event: chance.choice([[], None, 7, "kline"]),
]
BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    lambda chance, data: data[: chance.randrange(1, len(data))],
    lambda chance, data: chance.randbytes(chance.randrange(1, 600)),
    lambda chance, data: b"[" * 60_000,
    lambda chance, data: data.replace(b'"n": 7', b'"n": ' + b"7" * 5000),
]


def poisonous(chance: random.Random, number: int) -> bytes:
    event = kline_event(BTC, START + number * MINUTE, closed=True)
    which = number % (len(KINDS) + len(BYTES))
    if which < len(KINDS):
        return json.dumps({"stream": "btcusdt@kline_1m", "data": KINDS[which](chance, event)}).encode()
    return BYTES[which - len(KINDS)](chance, combined(BTC, event).encode())


class Script:
    """A socket on which frames come, one after another, and then the end."""

    simulation = None

    def __init__(self, frames: list[bytes]) -> None:
        self._frames: Iterator[bytes] = iter(frames)

    def __call__(self, base: str, timeout: float) -> "Script":
        return self

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *error: object) -> None: ...

    def send(self, text: str) -> None: ...

    def receive(self, timeout: float) -> bytes:
        found = next(self._frames, None)
        if found is None:
            raise StreamLost("closed", "that was all")
        return found


def test_poison_among_frames_is_counted_and_every_good_one_is_heard_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(13)
    opens = [START + number * MINUTE for number in range(GOOD)]
    frames = [combined(BTC, kline_event(BTC, opened, closed=True)).encode() for opened in opens]
    for number, place in enumerate(sorted(chance.sample(range(GOOD), POISON), reverse=True)):
        frames.insert(place, poisonous(chance, number))
    monkeypatch.setattr("ingestion.collector.connections.StreamSocket", Script(frames))
    events: Queue[Any] = Queue()
    metrics = Metrics()
    connection = Connection("ws://exchange.test", [BTC], events, metrics, stale_after=45)
    connection.start()
    until(lambda: connection.closed)
    assert [event.frame.open_time for event in events.queue] == opens
    assert metrics.total(metrics.errors) == POISON + 1  # and the end
