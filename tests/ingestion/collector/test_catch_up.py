"""Bars by REST: in pages, within the exchange's limits, again after failures."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from ingestion.bus.local import LocalBus
from ingestion.collector.catch_up import Wants
from ingestion.collector.service import Service
from ingestion.klines import Series
from ingestion.settings import Settings, load_settings
from ingestion.simulator.server import build_app, running
from tests.support.fake_time import FakeTime
from tests.support.live import Bars, serving, until

SERIES = [Series(f"A{number}USDT", "1m") for number in range(20)]


def test_only_as_many_series_ask_as_there_are_threads() -> None:
    wants = Wants()
    for one in SERIES:
        wants.want(one)
    assert wants.next() == SERIES[:4]
    assert wants.next() == []
    wants.answered(SERIES[1], progress=True)
    assert wants.next() == [SERIES[4]]


def test_a_series_that_wants_another_page_waits_for_its_turn() -> None:
    wants = Wants()
    for one in SERIES:
        wants.want(one)
    [first, *_] = wants.next()
    wants.answered(first, progress=True)
    wants.want(first)
    assert wants.next() == [SERIES[4]]


def test_the_waits_of_a_series_without_progress_grow_to_a_minute() -> None:
    time = FakeTime()
    wants, asked = Wants(time.clock), []
    while time.clock() < 1_000_000 + 1200:
        wants.want(SERIES[0])
        if wants.next():
            asked.append(time.clock())
            wants.answered(SERIES[0], progress=False)
        time.sleep(0.5)
    waits = [later - earlier for earlier, later in zip(asked, asked[1:], strict=False)]
    assert waits[0] <= 1.5
    assert 29 < max(waits) < 62


def test_something_new_is_not_kept_waiting() -> None:
    wants = Wants()
    wants.want(SERIES[0])
    wants.next()
    wants.answered(SERIES[0], progress=False)
    wants.want(SERIES[0])
    assert wants.next() == []
    wants.hurry(SERIES[0])
    assert wants.next() == [SERIES[0]]


class Leap:
    """The exchange's clock: it stands, and is moved by the test."""

    def __init__(self) -> None:
        self.now = datetime(2025, 6, 15, 12, 0, 30, tzinfo=UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            return self.now

    def move(self, by: timedelta) -> None:
        with self._lock:
            self.now += by


@pytest.fixture
def clock() -> Leap:
    return Leap()


@pytest.fixture
def exchange(clock: Leap) -> Iterator[str]:
    with running(build_app(now=clock, more_symbols=97)) as address:
        yield address


def asked(exchange: str, page: str) -> dict[str, Any]:
    found: dict[str, Any] = urllib3.request("GET", f"{exchange}/simulator/{page}").json()
    return found


def is_settled(url: str) -> bool:
    report = urllib3.request("GET", f"{url}/health", timeout=10, retries=False).json()
    series = report.get("series", {}).values()
    return len(series) > 0 and report["websocket_connected"] and not any(one["catching_up"] for one in series)


def settings_of(home: Path, exchange: str) -> Settings:
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", *(f"SIM{number:03}USDT" for number in range(1, 98))]
    return load_settings(home=home, archive_url=exchange, symbols=",".join(symbols), interval="5m", collector_port=0)


def test_a_hundred_series_catch_up_after_ten_minutes_and_after_a_day_within_the_limits(
    tmp_path: Path, clock: Leap, exchange: str
) -> None:
    settings = settings_of(tmp_path / "home", exchange)
    with ExitStack() as stack:
        bus = stack.enter_context(LocalBus(settings.bus_path))
        bars = Bars(bus)
        expected = 0
        for away, missed in ((timedelta(0), 0), (timedelta(minutes=10), 2), (timedelta(days=1), 288)):
            clock.move(away)
            expected += missed * 100
            with serving(Service(settings, bus)) as url:
                until(lambda: is_settled(url), seconds=120)
                until(lambda: len(bars.read()) >= expected, seconds=60)  # noqa: B023 - called here
    assert len(bars.all) == len({bar.key for bar in bars.all}) == expected
    for series in settings.series:
        opens = [bar.open_time for bar in bars.all if bar.series == series]
        assert opens == list(range(opens[0], opens[0] + 290 * 300_000_000, 300_000_000))
    assert asked(exchange, "fired") == {} or "weight_limit" not in asked(exchange, "fired")
    assert asked(exchange, "requests")["klines"] <= 3 * 100 + 50
