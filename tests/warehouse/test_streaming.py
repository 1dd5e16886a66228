"""The streaming run: from the bus to what readers see, one at a time, killed and started again."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from support.homes import home, random_walk
from support.streamed import between, messages

from ingestion.bus.local import LocalBus
from ingestion.bus.open import open_bus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, REASON, TOPOLOGY, Bus, Message
from ingestion.klines import Series
from ingestion.messages import encode
from ingestion.settings import Settings
from warehouse.serving import run_query
from warehouse.streaming import BatchReport, stream, until_asked

START = datetime(2024, 6, 30, 20, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
KLINES_OF_A_DAY = pa.concat_tables(
    random_walk(Series(symbol, "15m"), START, 96, seed=seed) for seed, symbol in enumerate(SYMBOLS)
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home", symbols=",".join(SYMBOLS), interval="15m")


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    with open_bus(settings) as opened:
        yield opened


def publish_bars(bus: Bus, first: int, last: int) -> None:
    bus.publish(KLINES, [encode(one) for one in messages(between(KLINES_OF_A_DAY, first, last))])


def drained(bus: Bus) -> Callable[[], str | None]:
    return lambda: None if bus.backlog(MICROBATCH).messages else "nothing waits"


def test_bars_on_the_bus_become_visible_and_are_acknowledged(settings: Settings, bus: Bus) -> None:
    reports: list[BatchReport] = []
    publish_bars(bus, 0, 40)
    assert stream(settings, bus, reports.append, drained(bus)) == "nothing waits"
    assert sum(report.rows for report in reports) == 80
    last = reports[-1]
    assert (last.series, last.refused, last.backlog) == (2, (), 0)
    assert last.watermark == START + timedelta(minutes=15 * 40, milliseconds=-1)
    count = "select count(*), max(open_time) from market_data_unified where \"interval\" = '15m'"
    assert run_query(settings, count).rows == [(80, START + timedelta(minutes=15 * 39))]


def test_what_is_no_kline_becomes_a_dead_letter_with_its_reason_and_the_others_go_on(settings: Settings) -> None:
    at_once = [one.__class__(one.name, one.topic, min_backoff=timedelta(0)) for one in TOPOLOGY]
    with LocalBus(settings.bus_path, at_once) as bus:
        bus.publish(KLINES, [Message(b"{")])
        publish_bars(bus, 0, 2)
        bus.publish(KLINES, [Message(b'{"schema": 1}')])
        refused: list[str] = []
        stream(settings, bus, lambda report: refused.extend(report.refused), drained(bus))
        dead = bus.pull(DEAD_LETTERS_SUBSCRIPTION, max_messages=10, max_bytes=1 << 20, wait=1)
    assert sorted(one.message.data for one in dead) == [b"{", b'{"schema": 1}']
    assert all("The message is no kline" in one.message.attributes[REASON] for one in dead)
    assert len(refused) == 10
    assert run_query(settings, "select count(*) from market_data_unified").rows == [(4,)]


def test_a_signal_ends_a_run_after_its_batch_and_means_what_it_did_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_asked() as asked:
        assert asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == "it was asked to stop"
    assert signal.getsignal(signal.SIGTERM) is before
