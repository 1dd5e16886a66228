import math
from datetime import UTC, datetime, timedelta

import pytest

from ingestion.simulator.clock import Clock, PolledClock, clock_from, clock_of
from ingestion.simulator.market import micros

START = datetime(2025, 6, 15, 12, tzinfo=UTC)


class Elapsed:
    """The machine's seconds, as the test sets them."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("speed", "passed"), [(0.0, 0), (0.5, 5), (1.0, 10), (60.0, 600)])
def test_a_clock_goes_on_by_its_speed(speed: float, passed: int) -> None:
    elapsed = Elapsed()
    clock = Clock(START, speed, elapsed)
    elapsed.seconds += 10
    assert clock() == START + timedelta(seconds=passed)


def test_a_wait_is_in_seconds_of_the_machine() -> None:
    assert Clock(START, 60.0, Elapsed()).seconds_until(micros(START + timedelta(minutes=5))) == 5.0


def test_what_has_come_is_not_waited_for() -> None:
    assert Clock(START, 60.0, Elapsed()).seconds_until(micros(START) - 1) == 0.0


def test_a_clock_that_stands_still_never_gets_there() -> None:
    assert Clock(START, 0.0, Elapsed()).seconds_until(micros(START) + 1) == math.inf


def test_a_start_alone_stands_still() -> None:
    clock = clock_from(START, None)
    assert (clock.speed, clock()) == (0.0, START)


def test_a_start_and_a_speed_go_on_from_the_start() -> None:
    assert clock_from(START, 2.0).speed == 2.0
    assert clock_from(START, 2.0)() < START + timedelta(minutes=1)


@pytest.mark.parametrize("clock", [clock_from(None, None), clock_from(None, 1.0), clock_of(None)])
def test_without_a_start_it_is_now(clock: Clock) -> None:
    assert abs(clock() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_function_is_asked_again_and_again() -> None:
    now = [START]
    clock = clock_of(lambda: now[0])
    assert isinstance(clock, PolledClock)
    ahead = micros(START + timedelta(hours=1))
    assert 0 < clock.seconds_until(ahead) < 1
    now[0] += timedelta(hours=1)
    assert (clock.seconds_until(ahead), clock()) == (0.0, now[0])


def test_a_clock_stays_what_it_is() -> None:
    clock = Clock(START)
    assert clock_of(clock) is clock
