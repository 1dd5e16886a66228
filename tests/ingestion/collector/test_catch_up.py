"""Bars by REST: in pages, within the exchange's limits, again after failures."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

import pytest

from ingestion.binance.exchange import Exchange
from ingestion.collector.catch_up import Fetcher, Wants
from ingestion.grid import instant, micros
from ingestion.klines import DAY_MICROS, Series
from ingestion.settings import load_settings
from tests.ingestion.collector.conftest import Collecting
from tests.support.fake_time import FakeTime
from tests.support.live import BTC, MINUTE, START, live, rest_row, until

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

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


def test_the_waits_of_a_series_without_progress_grow_but_stay_under_a_minute() -> None:
    time = FakeTime()
    wants, asked = Wants(time.clock), []
    while time.clock() < 1_000_000 + 1200:
        wants.want(SERIES[0])
        if wants.next():
            asked.append(time.clock())
            wants.answered(SERIES[0], progress=False)
        time.sleep(0.5)
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert waits[0] <= 1.5
    assert 22 < max(waits) < 47


def test_something_new_is_not_kept_waiting() -> None:
    wants = Wants()
    wants.want(SERIES[0])
    wants.next()
    wants.answered(SERIES[0], progress=False)
    wants.want(SERIES[0])
    assert wants.next() == []
    wants.hurry(SERIES[0])
    assert wants.next() == [SERIES[0]]


def fetcher_of(host: "ArchiveHost") -> Fetcher:
    settings = load_settings(archive_url=host.url, rest_url=host.url, http_attempts=1)
    return Fetcher(lambda: Exchange(settings).rest, Queue(), 3000)


@pytest.mark.parametrize(
    ("interval", "opened", "length"), [("1w", "2025-02-24", 7), ("1M", "2025-03-01", 31), ("1d", "2025-03-02", 1)]
)
def test_the_bar_that_is_open_now_is_found_on_and_off_the_grid(
    host: "ArchiveHost", interval: str, opened: str, length: int
) -> None:
    series = Series("BTCUSDT", interval)
    at = micros(datetime.fromisoformat(opened).replace(tzinfo=UTC))
    host.time = datetime(2025, 3, 2, 12, tzinfo=UTC)
    before = at - (28 if interval == "1M" else length) * DAY_MICROS
    row = rest_row(BTC, before)
    host.klines[series.symbol, interval] = [[*row[:6], at // 1000 - 1, *row[7:]], rest_row(BTC, at)]
    host.klines[series.symbol, interval][1][6] = (at + length * DAY_MICROS) // 1000 - 1
    found = fetcher_of(host).fetch(series, None)
    assert (found.start, found.bars) == (at, ())


def test_a_bar_that_closed_this_second_is_left_to_the_stream(host: "ArchiveHost") -> None:
    host.klines[BTC.symbol, BTC.interval] = [rest_row(BTC, START), rest_row(BTC, START + MINUTE)]
    host.time = instant(START + 2 * MINUTE + 1_000_000)
    found = fetcher_of(host).fetch(BTC, START)
    assert [bar.open_time for bar in found.bars] == [START]


HUNDRED = [Series(f"SIM{number:03}USDT", "5m") for number in range(100)]
FIVE = 5 * MINUTE


@pytest.fixture
def many(host: "ArchiveHost", tmp_path: Path) -> Iterator[Collecting]:
    """A collector of a hundred series."""
    with live(host, *HUNDRED) as exchange:
        found = Collecting(exchange, tmp_path / "home")
        yield found
        found.close()


def weight(asked: Sequence[str]) -> int:
    return sum({"klines": 2, "time": 1}[path.partition("?")[0]] for path in asked)


@pytest.mark.parametrize("missed", [2, 288], ids=["ten minutes", "a day"])
def test_a_hundred_series_catch_up_after_our_own_stop_within_the_limits(many: Collecting, missed: int) -> None:
    many.start()
    many.stop()
    before = len(many.exchange.rest.asked_rest)
    for number in range(missed):
        many.exchange.close(START + number * FIVE, send=False)
    many.exchange.move(START + missed * FIVE + 12_000_000)
    many.start()
    until(lambda: len(many.bars.read()) >= missed * len(HUNDRED), seconds=60, every=0.1)
    opens: dict[str, list[int]] = defaultdict(list)
    for bar in many.bars.all:
        opens[bar.symbol].append(bar.open_time)
    expected = [START + number * FIVE for number in range(missed)]
    assert opens == {series.symbol: expected for series in HUNDRED}
    # A page and the clock per series, at the start and once the streams are open; the exchange takes 6000 a minute.
    assert weight(many.exchange.rest.asked_rest[before:]) <= 2 * 3 * len(HUNDRED)
