"""Bars that are appended: seen at once with their indicators, each once, and computed by an increment that may fail."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import numpy as np
import pytest
import talib
from filelock import FileLock
from support.bigquery_home import Cloud
from support.bigquery_live import computed
from support.homes import compute_bars_and_view, put, random_walk
from support.proxy import proxy
from support.streamed import streamed

from ingestion.klines import Series
from ingestion.settings import Settings
from warehouse import dbt
from warehouse.bigquery.append import Appender
from warehouse.bigquery.client import STORAGE_EMULATOR, BigQuery, WarehouseUnavailable
from warehouse.bigquery.live import LiveBigQuery
from warehouse.bigquery.tables import make_tables
from warehouse.dbt import BuildFailed

pytestmark = pytest.mark.bigquery

START = datetime(2025, 1, 1, tzinfo=UTC)
# Two months of history, and what streams after it.
KNOWN = 6 * 59
KLINES = random_walk(Series("BTCUSDT", "4h"), START, KNOWN + 60)


@pytest.fixture(scope="module")
def built(running_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One home for all tests, because building takes long: each test streams the bars that follow."""
    settings = running_cloud.home(
        tmp_path_factory.mktemp("home"), symbols="BTCUSDT", interval="4h", bigquery_increment_minutes=0.0001
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running_cloud.environment.items():
            patch.setenv(name, value)
        put(settings, Series("BTCUSDT", "4h"), KLINES.slice(0, KNOWN), KLINES["open_time"][KNOWN].as_py())
        compute_bars_and_view(settings)
    return settings


@pytest.fixture
def settings(running_cloud: Cloud, built: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in running_cloud.environment.items():
        monkeypatch.setenv(name, value)
    return built


@pytest.fixture
def warehouse(settings: Settings) -> Iterator[BigQuery]:
    found = BigQuery(settings)
    yield found
    found.close()


def come(live: LiveBigQuery, first: int, last: int) -> None:
    """These bars come by stream."""
    live.apply(streamed(KLINES.slice(first, last - first)))


def seen(warehouse: BigQuery, table: str = "market_data_live") -> list[tuple[Any, ...]]:
    """Open time, close, and an indicator of each bar, in order."""
    sql = f"""select open_time, close, rsi_14, ema_50 from {table}
        where `interval` = '4h' and open_time >= '{START}' order by open_time"""
    return warehouse.run(sql, purpose="test")


def assert_bars(found: list[tuple[Any, ...]], bars: int) -> None:
    """Each of so many bars once, with the indicators that TA-Lib finds."""
    assert [row[0] for row in found] == KLINES["open_time"].to_pylist()[:bars]
    closes = np.array([float(value) for value in KLINES["close"].to_pylist()[:bars]])
    for column, exact in ((1, closes), (2, talib.RSI(closes, 14)), (3, talib.EMA(closes, 50))):
        values = np.array([np.nan if row[column] is None else row[column] for row in found])
        np.testing.assert_allclose(values, exact, rtol=1e-9)


def test_a_bar_is_seen_once_it_is_appended_and_once_however_often(settings: Settings, warehouse: BigQuery) -> None:
    with LiveBigQuery(settings) as live:
        come(live, KNOWN, KNOWN + 3)
        assert_bars(seen(warehouse), KNOWN + 3)
        come(live, KNOWN, KNOWN + 4)
        come(live, KNOWN + 3, KNOWN + 5)
        assert_bars(seen(warehouse), KNOWN + 5)
        assert len(seen(warehouse, "market_data_unified")) == KNOWN
        computed(live)
    assert_bars(seen(warehouse, "market_data_unified"), KNOWN + 5)
    assert_bars(seen(warehouse), KNOWN + 5)


def test_an_increment_that_fails_leaves_its_bars_to_the_next_run(settings: Settings, warehouse: BigQuery) -> None:
    with LiveBigQuery(settings) as live, mock.patch.object(dbt, "run_live", side_effect=BuildFailed("It fails.", "")):
        come(live, KNOWN + 5, KNOWN + 6)
        with pytest.raises(BuildFailed):
            computed(live)
        # Appends go on.
        come(live, KNOWN + 6, KNOWN + 8)
        assert live._pending is not None
        assert live._pending.window.start == KLINES["open_time"][KNOWN + 5].as_py()
    assert_bars(seen(warehouse), KNOWN + 8)
    assert len(seen(warehouse, "market_data_unified")) == KNOWN + 5
    with LiveBigQuery(settings) as live:
        computed(live)
    assert_bars(seen(warehouse, "market_data_unified"), KNOWN + 8)
    with LiveBigQuery(settings) as live:
        assert live._pending is None


def test_a_busy_warehouse_keeps_increments_waiting_and_no_appends(settings: Settings, warehouse: BigQuery) -> None:
    hasty = settings.model_copy(update={"warehouse_wait": 0.1})
    before = rows_appended(warehouse)
    with LiveBigQuery(hasty) as live:
        with FileLock(settings.warehouse_path.with_suffix(".lock"), is_singleton=False):
            come(live, KNOWN + 8, KNOWN + 9)
            live.between_batches()
            assert live._work is not None
            live._work.exception(timeout=60)
            live.between_batches()
            assert_bars(seen(warehouse), KNOWN + 9)
            assert rows_appended(warehouse) == before + 1
        computed(live)
    assert_bars(seen(warehouse, "market_data_unified"), KNOWN + 9)


def rows_appended(warehouse: BigQuery) -> int:
    sql = f"select count(*) from crypto_raw.klines_stream where open_time >= '{START}'"
    return int(warehouse.run(sql, purpose="test")[0][0])


def test_nothing_is_asked_while_nothing_comes(settings: Settings, warehouse: BigQuery) -> None:
    with LiveBigQuery(settings) as live:
        assert live._pending is None
        jobs = len(list(warehouse.client.list_jobs()))
        for _ in range(3):
            live.between_batches()
            live.tidy()
        assert len(list(warehouse.client.list_jobs())) == jobs


def test_an_append_goes_on_over_a_new_connection(
    running_cloud: Cloud, settings: Settings, warehouse: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings.model_copy(update={"bigquery_project": f"{settings.bigquery_project}-other"})
    own = BigQuery(other)
    make_tables(own)
    with proxy(int(running_cloud.emulator.storage.rpartition(":")[2])) as between:
        monkeypatch.setenv(STORAGE_EMULATOR, f"127.0.0.1:{between.port}")
        with Appender(other.bigquery_project) as appender:
            for position in range(6):
                if position % 2:
                    between.reset()
                appender.append(KLINES.slice(position, 1))
    sql = f"select distinct open_time from crypto_raw.klines_stream where open_time >= '{START}' order by 1"
    assert own.run(sql, purpose="test") == [(at,) for at in KLINES["open_time"].to_pylist()[:6]]
    own.close()


def test_an_append_that_meets_nobody_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_EMULATOR, "127.0.0.1:9")
    monkeypatch.setattr("warehouse.bigquery.append._FIRST_WAIT", 0.01)
    with Appender(settings.bigquery_project) as appender, pytest.raises(WarehouseUnavailable):
        appender.append(KLINES.slice(0, 1))
