"""Hundreds of faults of the network, and long absences of our own, on a virtual clock."""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import pytest

from ingestion.collector.connections import Connection
from ingestion.collector.metrics import Metrics
from ingestion.klines import Series
from tests.support.fake_time import FakeTime
from tests.support.live import until
from tests.support.simulated import World

FAULTS = 500
# Bars that close more rarely than a minute: none is found to be missing by the next one alone.
THREE = [Series(f"SIM{number}USDT", "3m") for number in range(3)]


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """The jitter of waits is the same each time."""
    state = random.getstate()
    random.seed(15)
    yield
    random.setstate(state)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "spool.db", THREE, shards=3)
    found.max_age, found.life = 1800.0, 2100.0
    yield found
    found.stop()


def drop(world: World) -> float:
    for line in world.lines:
        line.end()
    return 0


def half_open(world: World) -> float:
    """Nothing is heard any more, which takes 45 s to be noticed."""
    for line in world.lines:
        line.turn_deaf()
    return 45


def partition(world: World) -> float:
    """Nothing goes through, in either direction, for up to five minutes."""
    seconds = world.chance.uniform(5, 300)
    half_open(world)
    world.refusal = 10.0  # by the client's own patience
    return blocked(world, seconds, "refuses", "rest_fails")


def refused(world: World) -> float:
    """Names, certificates, or the exchange itself say no, for up to two minutes, after a drop."""
    drop(world)
    world.refusal = 0.0
    return blocked(world, world.chance.uniform(1, 120), "refuses")


def banned(world: World) -> float:
    """REST says no for up to five minutes, after a drop."""
    drop(world)
    return blocked(world, world.chance.uniform(1, 300), "rest_fails")


def slow(world: World) -> float:
    """A drop, after which a handshake takes seconds."""
    drop(world)
    world.handshake = world.chance.uniform(5, 15)
    world.at(world.now + 15, lambda: setattr(world, "handshake", 1.0))
    return 0


def shutdown(world: World) -> float:
    for line in world.lines:
        line.retiring = True
        line.end(30)
    return 0


def blocked(world: World, seconds: float, *what: str) -> float:
    for name in what:
        setattr(world, name, True)
        world.at(world.now + seconds, lambda name=name: setattr(world, name, False))
    return seconds


KINDS: list[Callable[[World], float]] = [drop, half_open, partition, refused, banned, slow, shutdown]


def test_after_each_of_500_faults_all_is_whole_within_a_minute_and_limits_hold(world: World) -> None:
    world.go(30)
    fired: Counter[str] = Counter()
    for number in range(FAULTS):
        fault = KINDS[number % len(KINDS)]
        fired[fault.__name__] += 1
        world.go(fault(world))
        ended = world.now
        while not world.is_whole or world.core.behind:
            world.go(1)
            assert world.now - ended <= 60, f"after fault {number}, {fault.__name__}"
        world.go(world.chance.uniform(20, 90))
    assert (fired.total(), len(fired)) == (FAULTS, len(KINDS))
    assert world.wrong == []
    assert max(len(times) for times in world.published.values()) == 1
    assert busiest(world.tried) <= 150
    assert busiest_minute(world) <= 4800


def busiest(tried: list[float]) -> int:
    """The most attempts to connect in any five minutes."""
    return max(bisect_left(tried, at + 300) - number for number, at in enumerate(tried))


def busiest_minute(world: World) -> int:
    """The most weight asked of REST in a minute of its clock."""
    minutes: Counter[int] = Counter()
    for at, weight in world.asked:
        minutes[int(at // 60)] += weight
    return max(minutes.values())


HUNDRED = [Series(f"SIM{number:03}USDT", "5m") for number in range(100)]
FIVE = 300_000_000


def test_after_thirty_days_of_our_own_a_hundred_series_are_fresh_and_the_rest_is_left_to_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many questions as the 3000 bars of a series take, with a hundredth of the bars in each answer."""
    monkeypatch.setattr("ingestion.collector.catch_up._PAGE_BARS", 10)
    world = World(tmp_path / "spool.db", HUNDRED, most_bars=30)
    world.go(600)
    assert world.is_whole
    asked, before = len(world.asked), dict(world.published)
    world.be_away(30 * 86_400)
    since, back = world.now, world.next_bar
    newest = range(back - 28 * FIVE, back, FIVE)
    while not all((one, opened) in world.published for one in HUNDRED for opened in newest):
        world.go(1)
    assert world.now - since <= 300
    assert min(opened for _, opened in world.published.keys() - before.keys()) >= back - 31 * FIVE
    assert busiest_minute(world) <= 4800
    assert len(world.asked) - asked >= 2 * 3 * len(HUNDRED)
    world.stop()


class Silence:
    """A socket on which nothing comes any more, not even the end; time passes by waiting at it."""

    simulation = None

    def __init__(self, time: FakeTime) -> None:
        self._time = time

    def __call__(self, base: str, timeout: float) -> "Silence":
        return self

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *error: object) -> None: ...

    def send(self, text: str) -> None: ...

    def ping(self) -> None: ...

    def receive(self, timeout: float) -> None:
        self._time.sleep(timeout)


@pytest.mark.parametrize("stale_after", [45.0, 70.0], ids=["as set by default", "as long as can be set"])
def test_a_half_open_connection_is_noticed_within_75_seconds(
    monkeypatch: pytest.MonkeyPatch, stale_after: float
) -> None:
    time, metrics = FakeTime(), Metrics()
    monkeypatch.setattr("ingestion.collector.connections.StreamSocket", Silence(time))
    monkeypatch.setattr("ingestion.collector.connections.time", SimpleNamespace(monotonic=time.clock))
    begun = time.clock()
    connection = Connection("ws://exchange.test", THREE, Queue(), metrics, stale_after=stale_after)
    connection.start()
    until(lambda: connection.closed)
    assert stale_after < time.clock() - begun <= min(stale_after + 1, 75)
    assert metrics.total(metrics.errors) == 1
