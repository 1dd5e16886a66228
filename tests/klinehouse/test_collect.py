"""`klinehouse collect` as a real process, against the simulated exchange at two hundred times the speed of time."""

import json
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from ingestion.bus.local import LocalBus
from ingestion.bus.port import MICROBATCH
from ingestion.collector.spool import Spool
from ingestion.simulator.clock import Clock
from ingestion.simulator.faults import Faults
from ingestion.simulator.server import build_app, running
from tests.support.collector import CollectorProcess, as_told, first_of_each, published, told
from tests.support.live import until

SPEED = 200.0
MINUTE = 60_000_000


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tmp_path / "truth.jsonl"


@pytest.fixture
def exchange(truth: Path) -> Iterator[str]:
    clock = Clock(datetime(2025, 6, 15, 12, 0, 30, tzinfo=UTC), SPEED)
    faults = Faults(stream_missing_close=0.1, stream_drop=0.05, stream_duplicates=0.1, stream_garbage=0.1)
    with running(build_app(now=clock, truth=truth, faults=faults)) as address:
        yield address


Collect = Callable[[str], CollectorProcess]


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Collect]:
    """Makes a collector of the home `tmp_path/home`, which does not outlive the test."""
    made: list[CollectorProcess] = []

    def make(exchange: str) -> CollectorProcess:
        made.append(CollectorProcess(tmp_path / "home", exchange))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def messages(home: Path) -> int:
    with LocalBus(home / "bus" / "bus.sqlite") as bus:
        return bus.backlog(MICROBATCH).messages


def left_in_spool(home: Path) -> int:
    spool = Spool(home / "bus" / "spool" / "collector.db", 1)
    count = spool.messages
    spool.close()
    return count


def require_every_bar(home: Path, truth: Path, symbols: int = 3) -> None:
    """From the first bar of each series to its last, those that the exchange closed, with its values, in order."""
    bars = first_of_each(published(home))
    closed = told(truth)
    compared = 0
    series = {bar.symbol for bar in bars}
    assert len(series) == symbols
    for symbol in series:
        mine = [bar for bar in bars if bar.symbol == symbol]
        opens = [bar.open_time for bar in mine]
        assert opens == list(range(opens[0], opens[-1] + 1, MINUTE))
        for bar in mine:
            if (symbol, bar.open_time) in closed:
                values = closed[symbol, bar.open_time]
                values[6] = str(int(values[6]) // 1000 * 1000)
                assert as_told(bar) == values
                compared += 1
    assert compared > len(bars) / 2


def test_it_collects_every_bar_whatever_the_stream_does(
    collect: Collect, tmp_path: Path, exchange: str, truth: Path
) -> None:
    collector = collect(exchange).start()
    until(lambda: collector.health().get("messages_published", 0) >= 60, seconds=60)
    code, _ = collector.terminate()
    assert code == 0
    require_every_bar(tmp_path / "home", truth)
    fired = urllib3.request("GET", f"{exchange}/simulator/fired").json()["fired"]
    assert {"stream_missing_close", "stream_drop", "stream_duplicates", "stream_garbage"} <= fired.keys()


def test_killed_at_any_moment_and_started_again_it_loses_no_bar(
    collect: Collect, tmp_path: Path, exchange: str, truth: Path
) -> None:
    collector = collect(exchange)
    moments = random.Random(7)
    for _ in range(5):
        collector.start()
        known = messages(tmp_path / "home")
        until(lambda: messages(tmp_path / "home") > known, seconds=60)  # noqa: B023 - called here
        time.sleep(moments.uniform(0, 1.5))
        collector.kill()
    collector.start()
    until(lambda: collector.health().get("messages_published", 0) >= 6, seconds=60)
    assert collector.terminate()[0] == 0
    require_every_bar(tmp_path / "home", truth)


def test_it_leaves_within_ten_seconds_and_publishes_what_it_has(
    collect: Collect, tmp_path: Path, exchange: str
) -> None:
    collector = collect(exchange).start()
    until(lambda: collector.health().get("messages_published"), seconds=60)
    begun = time.monotonic()
    code, _ = collector.terminate()
    assert (code, time.monotonic() - begun < 10) == (0, True)
    assert left_in_spool(tmp_path / "home") == 0


def test_it_leaves_as_soon_while_the_exchange_cannot_be_reached(collect: Collect) -> None:
    collector = collect("http://127.0.0.1:9").start()
    assert collector.health()["status"] == "starting"
    begun = time.monotonic()
    code, _ = collector.terminate()
    assert (code, time.monotonic() - begun < 10) == (0, True)


def test_it_leaves_as_soon_while_the_bus_hangs_and_keeps_its_bars(
    collect: Collect, tmp_path: Path, exchange: str
) -> None:
    collector = collect(exchange).start()
    until(lambda: collector.health().get("messages_published"), seconds=60)
    other = sqlite3.connect(tmp_path / "home" / "bus" / "bus.sqlite", isolation_level=None)
    other.execute("begin immediate")
    until(lambda: collector.health()["spool_messages"] > 3)
    begun = time.monotonic()
    code, _ = collector.terminate()
    assert (code, time.monotonic() - begun < 10) == (0, True)
    other.close()
    assert left_in_spool(tmp_path / "home") > 3


def test_it_needs_neither_orchestrator_nor_dbt_nor_the_warehouse_engine(
    collect: Collect, tmp_path: Path, exchange: str
) -> None:
    collector = collect(exchange).start(confessing=True)
    until(lambda: collector.health().get("messages_published"), seconds=60)
    assert collector.terminate() == (0, "[]\n")


def test_its_log_is_json_lines_that_name_what_happens(collect: Collect, exchange: str) -> None:
    collector = collect(exchange).start()
    until(lambda: collector.health().get("messages_published"), seconds=60)
    collector.process.send_signal(signal.SIGINT)
    assert collector.process.wait(20) == 0
    events = [json.loads(line)["event"] for line in collector.log().splitlines()]
    assert [events[0], events[-1]] == ["collecting", "stopped"]
