"""Connections over hours and days of a virtual clock."""

from collections.abc import Sequence

import pytest

from ingestion.collector.metrics import Metrics
from ingestion.collector.shards import ConnectLimit, Shard
from ingestion.klines import Series
from tests.support.fake_time import FakeTime
from tests.support.live import BTC

DAY = 86_400.0


class Wire:
    """A connection as the test wants it: ready after `delay` seconds, closed by the exchange after `life`."""

    def __init__(self, time: FakeTime, *, delay: float = 1.0, life: float = DAY, refused: bool = False) -> None:
        self._time, self._delay, self._life = time, delay, life
        self.opened_at = self.data_at = time.clock()
        self.retiring = self.left = False
        self._refused = refused

    def start(self) -> None:
        self.opened_at = self._time.clock()

    def leave(self) -> None:
        self.left = True

    @property
    def age(self) -> float:
        return self._time.clock() - self.opened_at

    @property
    def closed(self) -> bool:
        return self.left or self._refused or self.age >= self._life

    @property
    def ready(self) -> bool:
        return not self.closed and self.age >= self._delay


class Exchange:
    """Makes connections for a shard and keeps them and when each was tried."""

    def __init__(self, time: FakeTime, **wire: float) -> None:
        self.time, self.wire = time, wire
        self.wires: list[Wire] = []
        self.tried: list[float] = []
        self.refuses = False

    def dial(self, series: Sequence[Series]) -> Wire:
        self.tried.append(self.time.clock())
        self.wires.append(Wire(self.time, **self.wire, refused=self.refuses))
        return self.wires[-1]

    @property
    def is_heard(self) -> bool:
        """Whether a frame that is sent now would be heard."""
        return any(wire.ready for wire in self.wires[-3:])


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def shard_of(exchange: Exchange, metrics: Metrics, limit: ConnectLimit | None = None, max_age: float = 82_800) -> Shard:
    limit = limit or ConnectLimit(clock=exchange.time.clock)
    clock = exchange.time.clock
    return Shard([BTC], exchange.dial, limit, metrics, max_age=max_age, exchange_clock=clock, clock=clock)


def pass_time(shards: Sequence[Shard], time: FakeTime, seconds: float, step: float) -> int:
    """Tick; returns how often bars began to come after an interruption."""
    interruptions = 0
    for _ in range(round(seconds / step)):
        interruptions += sum(shard.tick() for shard in shards)
        time.sleep(step)
    return interruptions


def test_a_year_of_rotations_is_one_stream_without_interruption(time: FakeTime) -> None:
    exchange, metrics = Exchange(time), Metrics()
    shard = shard_of(exchange, metrics)
    assert pass_time([shard], time, 60, 1) == 1
    unheard = 0
    while metrics.total(metrics.rotations) < 365:
        assert not shard.tick()
        unheard += not exchange.is_heard
        time.sleep(600 if exchange.wires[-1].age > 60 else 0.5)
    assert unheard == 0
    assert (metrics.total(metrics.rotations), metrics.total(metrics.reconnects)) == (365, 0)
    assert max(wire.age for wire in exchange.wires if not wire.left) < DAY


def test_the_old_connection_leaves_only_when_the_new_one_is_ready(time: FakeTime) -> None:
    exchange = Exchange(time, delay=5)
    shard = shard_of(exchange, Metrics())
    pass_time([shard], time, 10, 1)
    exchange.wires[0].retiring = True
    pass_time([shard], time, 4, 1)
    assert [wire.left for wire in exchange.wires] == [False, False]
    pass_time([shard], time, 2, 1)
    assert exchange.wires[1].ready
    assert not exchange.wires[0].left  # what it has heard may still be on its way
    pass_time([shard], time, 2, 1)
    assert [wire.left for wire in exchange.wires] == [True, False]


def test_a_connection_that_ends_while_both_are_ready_is_no_interruption(time: FakeTime) -> None:
    exchange, metrics = Exchange(time, delay=5), Metrics()
    shard = shard_of(exchange, metrics)
    pass_time([shard], time, 10, 1)
    exchange.wires[0].retiring = True
    pass_time([shard], time, 6, 0.5)
    assert exchange.wires[1].ready
    exchange.wires[0].left = True
    assert pass_time([shard], time, 20, 1) == 0
    assert metrics.total(metrics.rotations) == 1


def test_a_connection_that_ends_before_its_successor_is_ready_is_an_interruption(time: FakeTime) -> None:
    exchange = Exchange(time, delay=5)
    shard = shard_of(exchange, Metrics())
    pass_time([shard], time, 10, 1)
    exchange.wires[0].retiring = True
    pass_time([shard], time, 2, 1)
    exchange.wires[0].left = True
    assert pass_time([shard], time, 20, 1) == 1
    assert len(exchange.wires) == 2


def test_a_lost_connection_is_opened_again_within_a_second(time: FakeTime) -> None:
    exchange = Exchange(time)
    shard = shard_of(exchange, Metrics())
    pass_time([shard], time, 120, 0.1)
    exchange.wires[0].left = True
    lost = time.clock()
    assert pass_time([shard], time, 5, 0.1) == 1
    assert exchange.tried[1] - lost < 1


def test_the_waits_grow_while_the_exchange_refuses_and_stay_under_a_minute(time: FakeTime) -> None:
    exchange = Exchange(time)
    exchange.refuses = True
    pass_time([shard_of(exchange, Metrics())], time, 3600, 0.5)
    waits = [later - earlier for earlier, later in zip(exchange.tried, exchange.tried[1:], strict=False)]
    assert max(waits[:2]) < 2
    assert 9 < min(waits[-20:]) < max(waits[-20:]) < 30


@pytest.mark.parametrize("life", [0.0, 0.5, 70.0])
def test_no_five_minutes_see_more_attempts_than_the_exchange_takes(time: FakeTime, life: float) -> None:
    limit = ConnectLimit(clock=time.clock)
    exchange = Exchange(time, life=life, delay=0.2)
    shards = [shard_of(exchange, Metrics(), limit) for _ in range(60)]
    pass_time(shards, time, 1500, 0.5)
    tried = exchange.tried
    assert len(tried) > 300
    assert max(sum(at <= one < at + 300 for one in tried) for at in tried) <= 150


def test_the_age_of_the_data_is_that_of_the_connection_that_streams(time: FakeTime) -> None:
    exchange = Exchange(time)
    shard = shard_of(exchange, Metrics())
    assert shard.data_at is None
    pass_time([shard], time, 5, 1)
    assert shard.data_at == exchange.wires[0].data_at
    assert shard.down_since is None
