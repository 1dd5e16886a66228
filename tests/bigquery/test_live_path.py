"""The live path as real processes: simulated exchange, collector, bus, streaming run, object store and BigQuery.

It takes a minute, because an increment takes ten seconds on the emulator and streaming runs start four times.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib
from support import bigquery_home, pubsub_emulator
from support.bigquery_home import Cloud, of_process
from support.bigquery_live import Streaming, computed, exchange, hasty
from support.collector import CollectorProcess, told
from support.command import answer
from support.homes import compute_bars_and_view
from support.live import until

from ingestion.bus import dead_letters
from ingestion.bus.open import init_bus, open_bus
from ingestion.bus.port import KLINES, Message
from ingestion.grid import micros
from ingestion.settings import Settings
from warehouse.bigquery.client import BigQuery
from warehouse.bigquery.live import LiveBigQuery

pytestmark = [pytest.mark.bigquery, pytest.mark.pubsub]

SYMBOLS = ("BTCUSDT", "ETHUSDT")
FAULTS = ("stream_drop=0.002", "stream_missing_close=0.05", "stream_late_close=0.05", "stream_duplicates=0.1")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    reason = bigquery_home.unavailable()
    if reason:
        pytest.skip(reason)
    with bigquery_home.cloud(tmp_path / "cloud") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Settings of the bus: Google's emulator of Pub/Sub, where this machine has it, or the local one."""
    monkeypatch.setattr("ingestion.bus.open.TOPOLOGY", hasty())
    if pubsub_emulator.unavailable():
        yield {"bus": "local"}
        return
    with pubsub_emulator.running() as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        yield {"bus": "pubsub", "pubsub_project": f"test-{uuid.uuid4()}"}


def bars(warehouse: BigQuery, table: str) -> dict[str, list[tuple[Any, ...]]]:
    """By symbol: open time, open, high, low, close, and two indicators of each bar of a minute, in order."""
    rows = warehouse.run(
        f"select symbol, open_time, open, high, low, close, rsi_14, ema_50 from {table} "
        "where `interval` = '1m' and open_time >= '2025-01-01' order by symbol, open_time",
        purpose="test",
    )
    return {symbol: [row[1:] for row in rows if row[0] == symbol] for symbol in SYMBOLS}


def readable(warehouse: BigQuery, expected: set[tuple[str, int]]) -> bool:
    """Whether all of these bars can be read."""
    opens = [opened for _, opened in expected]
    within = f"open_time between timestamp_micros({min(opens)}) and timestamp_micros({max(opens)})"
    sql = f"select count(*) from (select distinct symbol, open_time from market_data_live where {within})"
    return bool(warehouse.run(sql, purpose="test")[0][0] == len(expected))


def assert_exact(rows: list[tuple[Any, ...]]) -> None:
    """Each minute once, with the indicators that TA-Lib finds in all of them."""
    opens = np.array([micros(row[0]) for row in rows])
    assert set(np.diff(opens)) == {60_000_000}
    closes = np.array([row[4] for row in rows])
    for column, exact in ((5, talib.RSI(closes, 14)), (6, talib.EMA(closes, 50))):
        found = np.array([np.nan if row[column] is None else row[column] for row in rows])
        np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_every_bar_comes_once_with_its_indicators_through_kills_and_poison(
    cloud: Cloud, bus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exchange(tmp_path, "2025-12-02T00:05", 40, *FAULTS) as (url, truth):
        settings = cloud.home(
            tmp_path / "home",
            symbols=",".join(SYMBOLS),
            interval="1m",
            archive_url=url,
            bigquery_increment_minutes=0.05,
            **bus,
        )
        init_bus(settings)
        for name, value in of_process(settings).items():
            monkeypatch.setenv(name, value)
        collector, streaming = CollectorProcess(settings.home, url), Streaming(tmp_path)
        try:
            collector.start()
            answer("land", "--start", "2025-12", "--end", "2026-01")
            compute_bars_and_view(settings)
            disturb(settings, collector, streaming)
            closed = told(truth)
            warehouse = BigQuery(settings)
            until(lambda: readable(warehouse, set(closed)), seconds=90, every=0.5)
            assert streaming.end(60) == 0, streaming.said()
        finally:
            collector.kill()
            streaming.kill()
    with LiveBigQuery(settings) as live:
        computed(live)
    unified = bars(warehouse, "market_data_unified")
    assert unified == bars(warehouse, "market_data_live")
    for symbol in SYMBOLS:
        assert_exact(unified[symbol])
        expected = {opened: values for (one, opened), values in closed.items() if one == symbol}
        found = {micros(row[0]): row[1:5] for row in unified[symbol]}
        assert len(expected) > 20
        assert {opened: found.get(opened) for opened in expected} == {
            opened: tuple(map(float, values[1:5])) for opened, values in expected.items()
        }


def disturb(settings: Settings, collector: CollectorProcess, streaming: Streaming) -> None:
    """Streaming runs are killed before, in and after an increment, the collector once; a message is poison."""
    streaming.start()
    until(streaming.batches, seconds=60)
    streaming.kill()
    with open_bus(settings) as opened:
        opened.publish(KLINES, [Message(b"no kline")])
    for batches in (3, 8):
        streaming.start()
        until(lambda count=batches: len(streaming.batches()) >= count, seconds=60)
        streaming.kill()
        collector.kill()
        collector.start()
    streaming.start()
    with open_bus(settings) as opened:

        def letters() -> list[str]:
            with dead_letters.borrowed(opened, 10) as found:
                return [letter.reason for letter in found]

        (reason,) = until(letters, seconds=60, every=0.2)
    assert reason
