"""The kline streams as they go on: updates, closing frames and what goes wrong with them, to whoever follows.

A series goes on from its first subscription to the end of the exchange, with or without followers: its truth is noted.
"""

import asyncio
import heapq
import itertools
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from ingestion.errors import UsageError
from ingestion.klines import Series
from ingestion.simulator.clock import ExchangeClock
from ingestion.simulator.frames import KlineFrame, binary_frame, stream_name, text_frame
from ingestion.simulator.garbage import garbage
from ingestion.simulator.market import Market
from ingestion.simulator.parameters import INTERVALS
from ingestion.simulator.stream_limits import StreamLimits
from ingestion.simulator.tape import Kline, Tape
from ingestion.simulator.trouble import Trouble
from ingestion.simulator.truth import Truth

_NEVER = 2**63
_LONGEST_WAIT = 3600.0
# Updates are spread over their period in a few groups: not all series at once, and not each on its own.
_PHASES = 8
# When the clock has jumped: bars of one series that close in one go before others get their turn, and turns before the
# connections get theirs. What they make together stays below the buffer of a connection.
_CLOSES_AT_ONCE = 20
_TURNS = 100


class Follower(Protocol):
    """A connection, as the feed sees it."""

    micro: bool

    @property
    def is_combined(self) -> bool: ...

    @property
    def why(self) -> str:
        """What keeps frames from it, when something does."""

    def send(self, frame: bytes) -> bool: ...

    def drop(self, why: str) -> None: ...

    def be_silent(self, seconds: float) -> None: ...


@dataclass(eq=False)
class _Channel:
    """One series: where it stands, who follows it, and what is next."""

    series: Series
    since: int  # the instant of the first subscription
    tape: Tape = field(init=False)
    followers: dict[Follower, None] = field(default_factory=dict)
    lost: str = "not_connected"  # why there is no follower, when there is none
    phase: int = 0
    next_update: int = 0
    drop_at: int = _NEVER
    traded: tuple[int, int, int] = (0, 0, 0)  # what the last frame told
    frames: int = 0  # of this bar, so far
    held: KlineFrame | None = None  # a closing frame that comes late
    due: int = 0


class Feed:
    """All kline streams of one market. Everything but its construction happens in the server's event loop."""

    def __init__(
        self, market: Market, clock: ExchangeClock, trouble: Trouble, limits: StreamLimits, truth: Truth
    ) -> None:
        self._market, self._clock, self._trouble, self._limits, self._truth = market, clock, trouble, limits, truth
        self._channels: dict[str, _Channel] = {}
        self._new: deque[_Channel] = deque()  # without their tape: to read it takes a moment
        self._low: deque[_Channel] = deque()  # whose tape runs out soon
        self._queue: list[tuple[int, int, _Channel]] = []
        self._order = itertools.count()
        self._woken = asyncio.Event()
        self._update_period = int(1e6 * max(limits.update_every, clock.speed / limits.updates_per_second))
        self._close_delay = int(1e6 * limits.close_delay * clock.speed)

    def follow(self, follower: Follower, streams: list[str]) -> None:
        """Subscribe to the streams that there are; the others stay silent."""
        for name in streams:
            channel = self._channel(name)
            if channel:
                channel.followers[follower] = None
                if channel not in self._new:
                    self._schedule(channel)
        self._woken.set()

    def leave(self, follower: Follower, streams: list[str], why: str) -> None:
        for name in streams:
            channel = self._channels.get(name)
            if channel and follower in channel.followers:
                del channel.followers[follower]
                channel.lost = why

    async def run(self) -> None:
        """Go on until cancelled."""
        self._woken = asyncio.Event()
        try:
            await self._go_on()
        finally:
            for channel in self._channels.values():
                if channel.held:
                    self._note(channel, channel.held.kline, "stream_late_close")
                    channel.held = None

    async def _go_on(self) -> None:
        while True:
            self._woken.clear()
            if self._pass():
                await asyncio.sleep(0)
                continue
            wait = min(self._clock.seconds_until(self._queue[0][0]), _LONGEST_WAIT) if self._queue else None
            try:
                await asyncio.wait_for(self._woken.wait(), wait)
            except TimeoutError:
                continue

    def _channel(self, name: str) -> _Channel | None:
        """The channel of a stream, made when it is first asked for."""
        if name not in self._channels:
            series = _series(name)
            if series is None or series.symbol not in self._market.listings:
                return None
            channel = _Channel(series, self._clock.micros())
            channel.phase = zlib.crc32(name.encode()) % _PHASES * self._update_period // _PHASES
            channel.next_update = self._next_update(channel, channel.since)
            self._channels[name] = channel
            self._new.append(channel)
        return self._channels[name]

    def _pass(self) -> bool:
        """Do what is due; whether there is more to do at once."""
        now = self._clock.micros()
        for _ in range(_TURNS):
            if not self._queue or self._queue[0][0] > now:
                break
            due, _, channel = heapq.heappop(self._queue)
            if due == channel.due:
                self._step(channel, self._clock.micros())
                self._schedule(channel)
        return self._read_one() or bool(self._queue and self._queue[0][0] <= now)

    def _read_one(self) -> bool:
        """Read ahead in one tape, which takes some milliseconds; whether there was one to read."""
        if self._new:
            channel = self._new.popleft()
            channel.tape = Tape(self._market, channel.series, channel.since)
            self._begin_bar(channel)
            self._schedule(channel)
            return True
        if self._low:
            self._low.popleft().tape.read_ahead()
            return True
        return False

    def _schedule(self, channel: _Channel) -> None:
        if channel.tape.ended:
            channel.due = _NEVER
            return
        closing = channel.tape.close_time + 1 + self._close_delay
        channel.due = min(closing, channel.drop_at, channel.next_update if channel.followers else _NEVER)
        heapq.heappush(self._queue, (channel.due, next(self._order), channel))

    def _step(self, channel: _Channel, now: int) -> None:
        for _ in range(_CLOSES_AT_ONCE):
            if channel.drop_at <= now:
                self._drop(channel)
            if channel.tape.ended or channel.tape.close_time + 1 + self._close_delay > now:
                break
            self._close(channel, now)
            channel.tape.advance()
            self._begin_bar(channel)
            if channel.tape.is_low and channel not in self._low:
                self._low.append(channel)
        else:
            return
        if channel.followers and channel.next_update <= now and not channel.tape.ended:
            channel.next_update = self._next_update(channel, now)
            self._update(channel, now)

    def _next_update(self, channel: _Channel, now: int) -> int:
        return now + self._update_period - (now - channel.phase) % self._update_period

    def _begin_bar(self, channel: _Channel) -> None:
        channel.drop_at, channel.frames = _NEVER, 0
        if not channel.tape.ended and self._trouble.strikes("stream_drop", _bar(channel)):
            share = 0.2 + 0.6 * self._trouble.lot("the middle", _bar(channel))
            tape = channel.tape
            middle = tape.open_time + int((tape.close_time - tape.open_time) * share)
            channel.drop_at = middle if middle > channel.since else _NEVER

    def _drop(self, channel: _Channel) -> None:
        channel.drop_at = _NEVER
        if channel.followers:
            self._trouble.fire("stream_drop")
        for follower in list(channel.followers):
            follower.drop("stream_drop")

    def _update(self, channel: _Channel, now: int) -> None:
        kline = channel.tape.at(now)
        if kline is None or not kline.trades or kline.traded == channel.traded:
            return
        channel.traded = kline.traded
        self._deliver(channel, KlineFrame(channel.series, kline, now, closed=False))
        self._release(channel)

    def _close(self, channel: _Channel, now: int) -> None:
        """Tell the end of a bar, unless a fault is in the way; note it in either case."""
        kline = channel.tape.closed()
        trouble, bar = self._trouble, _bar(channel)
        if channel.followers and trouble.meets("stream_silence", bar):
            for follower in channel.followers:
                follower.be_silent(trouble.faults.stream_silence_seconds)
        if channel.followers and trouble.meets("stream_garbage", bar):
            self._send_garbage(channel)
        frame = KlineFrame(channel.series, kline, max(now, kline.close_time + 1000), closed=True)
        if channel.followers and trouble.meets("stream_missing_close", bar):
            self._note(channel, kline, "stream_missing_close")
        elif channel.followers and channel.held is None and trouble.meets("stream_late_close", bar):
            channel.held = frame
        else:
            self._note(channel, kline, self._deliver(channel, frame))
            self._release(channel)

    def _release(self, channel: _Channel) -> None:
        """Deliver the closing frame that was held back, now that a newer frame has gone."""
        frame, channel.held = channel.held, None
        if frame:
            self._note(channel, frame.kline, self._deliver(channel, frame))

    def _deliver(self, channel: _Channel, frame: KlineFrame) -> str | None:
        """Send to all followers; None when one took it, else what kept it from them."""
        channel.frames += 1
        twice = channel.followers and self._trouble.meets("stream_duplicates", f"{_bar(channel)} {channel.frames}")
        fault: str | None = channel.lost
        for follower in list(channel.followers):
            made = frame.bytes_for(combined=follower.is_combined, micro=follower.micro)
            if follower.send(made + made if twice else made):
                fault = None
            elif fault is not None:
                fault = follower.why
        return fault

    def _send_garbage(self, channel: _Channel) -> None:
        which = int(self._trouble.lot("which garbage", _bar(channel)) * 1e6)
        content = garbage(channel.series, which)
        made = binary_frame(content) if isinstance(content, bytes) else text_frame(content)
        for follower in list(channel.followers):
            follower.send(made)

    def _note(self, channel: _Channel, kline: Kline, fault: str | None) -> None:
        self._truth.note(channel.series, kline, None if fault else time.time(), fault)


def _bar(channel: _Channel) -> str:
    return f"{stream_name(channel.series)} {channel.tape.open_time}"


def _series(name: str) -> Series | None:
    """The series of a stream, such as btcusdt@kline_5m; None for any other stream."""
    symbol, _, interval = name.partition("@kline_")
    if symbol != symbol.lower() or interval not in INTERVALS:
        return None
    try:
        return Series(symbol.upper(), interval)
    except UsageError:
        return None
