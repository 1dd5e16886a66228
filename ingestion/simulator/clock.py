"""The clock of the simulated exchange: it stands still, goes with the machine's, or faster by a factor."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from ingestion.simulator.market import instant_of, micros


class ExchangeClock(Protocol):
    """What tells the exchange's time. Instants are microseconds since 1970, lengths are the machine's seconds."""

    @property
    def speed(self) -> float: ...

    def __call__(self) -> datetime: ...

    def micros(self) -> int: ...

    def seconds_until(self, instant: int) -> float:
        """How long to wait before `instant` can have come; 0 when it has."""


class Clock:
    """Starts at an instant and runs `speed` times as fast as the machine's; 0 stands still."""

    def __init__(self, start: datetime, speed: float = 1.0, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._start, self._speed, self._elapsed = micros(start), speed, elapsed
        self._begun = elapsed()

    @classmethod
    def of_machine(cls) -> "Clock":
        """Follows the machine's clock, also when that is set."""
        clock = cls(datetime.now(UTC), 1.0, time.time)
        clock._start, clock._begun = 0, 0.0
        return clock

    @property
    def speed(self) -> float:
        return self._speed

    def micros(self) -> int:
        return self._start + int((self._elapsed() - self._begun) * 1e6 * self._speed)

    def __call__(self) -> datetime:
        return instant_of(self.micros())

    def seconds_until(self, instant: int) -> float:
        left = instant - self.micros()
        if left <= 0:
            return 0.0
        return left / 1e6 / self._speed if self._speed else math.inf


class PolledClock:
    """Another's clock, of which nothing is known but what it shows: it is asked again every `period` seconds."""

    def __init__(self, now: Callable[[], datetime], period: float = 0.02) -> None:
        self._now, self._period = now, period

    @property
    def speed(self) -> float:
        return 1.0

    def micros(self) -> int:
        return micros(self._now())

    def __call__(self) -> datetime:
        return self._now()

    def seconds_until(self, instant: int) -> float:
        return self._period if self.micros() < instant else 0.0


def clock_from(start: datetime | None, speed: float | None) -> Clock:
    """A start alone stands still, a speed alone starts now; with neither it is the machine's clock."""
    if start is None and speed is None:
        return Clock.of_machine()
    return Clock(start or datetime.now(UTC), (0.0 if start else 1.0) if speed is None else speed)


def clock_of(now: datetime | Callable[[], datetime] | ExchangeClock | None) -> ExchangeClock:
    """A clock as it is, one that stands still at an instant, another's, or (None) the machine's."""
    if now is None or isinstance(now, datetime):
        return clock_from(now, None)
    return now if isinstance(now, Clock | PolledClock) else PolledClock(now)
