"""An exchange, its network and a collector on a virtual clock: hours of bars and hundreds of faults in seconds.

Real are the shards, the core, the fetcher, the spool and the limits; played are what a connection hears and what REST
answers. A bar closes on the exchange, is told a moment later on every connection that hears, and lies in REST at once.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast

from ingestion.binance.rest import Rest, WeightBudget
from ingestion.binance.stream import KlineFrame
from ingestion.collector.catch_up import Fetcher, FetchFailed
from ingestion.collector.clock import ExchangeClock
from ingestion.collector.connections import Heard
from ingestion.collector.core import Core
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.shards import ConnectLimit, Shard
from ingestion.collector.spool import Spool
from ingestion.errors import ExchangeRefused
from ingestion.grid import instant, micros
from ingestion.klines import DECIMAL_COLUMNS, Series, grid_micros
from ingestion.messages import KlineMessage, decode
from ingestion.microbatch import to_rows
from tests.support.fake_time import FakeTime
from tests.support.live import START, values

STALE_AFTER = 45.0
# Seconds that an answer of REST takes; the exchange's own weights.
LATENCY, KLINES_WEIGHT, TIME_WEIGHT = 0.2, 2, 1


class Line:
    """A connection: `deaf` it hears nothing more, and notices that after STALE_AFTER seconds of silence."""

    def __init__(self, world: "World", series: Sequence[Series]) -> None:
        self._world, self.series = world, series
        self.opened_at = self.data_at = world.now
        self.retiring = self.left = False
        self._is_refused, self._refused_after = world.refuses, world.refusal
        self._deaf_since: float | None = None
        self._ends_at = world.now + world.life
        self._ready_at = world.now + world.handshake

    def start(self) -> None: ...

    def leave(self) -> None:
        self.left = True

    def turn_deaf(self) -> None:
        self._deaf_since = self._world.now if self._deaf_since is None else self._deaf_since

    def end(self, seconds: float = 0.0) -> None:
        self._ends_at = min(self._ends_at, self._world.now + seconds)

    @property
    def hears(self) -> bool:
        return self.ready and self._deaf_since is None

    @property
    def closed(self) -> bool:
        now = self._world.now
        if self._is_refused:
            return now - self.opened_at >= self._refused_after
        is_stale = self._deaf_since is not None and now - self._deaf_since > STALE_AFTER
        return self.left or is_stale or now >= self._ends_at

    @property
    def ready(self) -> bool:
        return not self.closed and not self._is_refused and self._world.now >= self._ready_at


class World(FakeTime):
    """`published` says when each bar was, in seconds, by series and open time; `tried` when a connection was, `asked`
    when REST was asked, and with which weight."""

    def __init__(self, path: Path, series: Sequence[Series], shards: int = 1, most_bars: int = 3000) -> None:
        super().__init__()
        self.chance = random.Random(15)
        self.most_bars = most_bars
        self.series = series
        self._path, self._number_of_shards = path, shards
        self.life, self.max_age, self.handshake, self.refusal = 86_400.0, 82_800.0, 1.0, 0.0
        self.refuses = self.rest_fails = False
        self.lines: list[Line] = []
        self.tried: list[float] = []
        self.asked: list[tuple[float, int]] = []
        self.published: dict[tuple[Series, int], list[float]] = {}
        self.wrong: list[KlineMessage] = []
        self.next_bar = self._whole_until = START
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._length = grid_micros(series[0].interval) or 0
        self.metrics = Metrics()
        self.limit = ConnectLimit(clock=self.clock)
        self.start()

    # --- the clock -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.clock()

    @property
    def exchange_time(self) -> int:
        return START + round((self.now - 1_000_000) * 1e6)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (when, next(self._order), what))

    def go(self, seconds: float, step: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.sleep(step)
            self._close_bars()
            while self._coming and self._coming[0][0] <= self.now:
                heapq.heappop(self._coming)[2]()
            self.core.step(0)

    def be_away(self, seconds: float) -> None:
        """The collector is stopped for so long, and started again."""
        self.stop()
        self.sleep(seconds)
        self._coming.clear()
        self.next_bar = self.exchange_time // self._length * self._length
        self.start()

    # --- the exchange ----------------------------------------------------------------------------------------------

    def _close_bars(self) -> None:
        while self.exchange_time >= self.next_bar + self._length:
            for one in self.series:
                self._tell(one, self.next_bar, closed=True)
            self.next_bar += self._length
        for line in self.lines:
            if line.hears:
                line.data_at = self.now

    def _tell(self, series: Series, opened: int, *, closed: bool) -> None:
        """On every connection that hears at that moment; sometimes twice."""
        told = self.exchange_time + 5000
        frame = KlineFrame(series, opened, opened + self._length - 1000, values(opened), 7, told, closed)

        def hear() -> None:
            for line in self.lines:
                if line.hears and series in line.series:
                    self.events.put(Heard(frame, told))

        self.at(self.now + self.chance.uniform(0, 2.4), hear)

    def dial(self, series: Sequence[Series]) -> Line:
        self.tried.append(self.now)
        self.lines = [*(line for line in self.lines if not line.closed), Line(self, series)]
        return self.lines[-1]

    # --- the collector ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """As a new process does: nothing is known but what the spool has."""
        self.events: Queue[Any] = Queue()
        self._spool = Spool(self._path, 1 << 26)
        clock = ExchangeClock(self.exchange_time)
        size = -(-len(self.series) // self._number_of_shards)
        shards = [
            Shard(
                self.series[first : first + size],
                self.dial,
                self.limit,
                self.metrics,
                max_age=self.max_age,
                exchange_clock=clock.seconds,
                clock=self.clock,
            )
            for first in range(0, len(self.series), size)
        ]
        fetcher, publisher = cast("Fetcher", _Fetcher(self)), cast("Publisher", self)
        self.core = Core(
            self.series, clock, self.events, shards, fetcher, self._spool, publisher, self.metrics, self.clock
        )

    def stop(self) -> None:
        self._spool.close()
        for line in self.lines:
            line.leave()

    def wake(self) -> None:
        """In the place of the publisher: the bus takes everything at once."""
        while batch := self._spool.head(1000):
            for one in batch:
                bar = decode(one.message)
                self.published.setdefault((bar.series, bar.open_time), []).append(self.now)
                if {name: getattr(bar, name) for name in DECIMAL_COLUMNS} != values(bar.open_time):
                    self.wrong.append(bar)
            self._spool.remove(batch)

    @property
    def is_whole(self) -> bool:
        """Whether every bar has been published that closed 15 seconds ago."""
        last = self.exchange_time - 15_000_000 - self._length
        while self._whole_until <= last:
            if any((one, self._whole_until) not in self.published for one in self.series):
                return False
            self._whole_until += self._length
        return True


class _Fetcher(Fetcher):
    """Answers after a while instead of by threads."""

    def __init__(self, world: World) -> None:
        self._world, self._budget = world, WeightBudget(4800, world.sleep, world.clock)
        super().__init__(lambda: cast("Rest", self), world.events, world.most_bars)

    def ask(self, series: Series, start: int | None) -> None:
        def answer() -> None:
            try:
                found: object = self.fetch(series, start)
            except ExchangeRefused as error:
                found = FetchFailed(series, error)
            self._events.put(found)

        self._world.at(self._world.now + 2 * LATENCY, answer)

    # --- what Rest answers -----------------------------------------------------------------------------------------

    def _take(self, weight: int) -> None:
        self._budget.take(weight)
        self._world.asked.append((self._world.now, weight))
        if self._world.rest_fails:
            raise ExchangeRefused("REST is away.", "Wait.")

    def server_time(self) -> Any:
        self._take(TIME_WEIGHT)
        return instant(self._world.exchange_time)

    def klines(self, series: Series, start: Any, end: Any, now: Any = None) -> Any:
        self._take(KLINES_WEIGHT)
        length = grid_micros(series.interval) or 0
        first, last = micros(start), min(micros(end), self._world.next_bar, micros(now) - length + 1)
        bars = [
            KlineMessage(
                series.symbol, series.interval, opened, opened + length - 1000, **values(opened),
                trades=7, source="rest", event_time=opened + length, received_time=opened + length,
            )
            for opened in range(-(-first // length) * length, last, length)
        ]  # fmt: skip
        parsed = SimpleNamespace(rows=to_rows(bars), broken=SimpleNamespace(reasons=())) if bars else None
        return SimpleNamespace(parsed=parsed, fetched_at=instant(self._world.exchange_time))
