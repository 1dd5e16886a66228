"""A backfill through Dagster on the persistent instance: runs, partitions, checks and metadata that the UI shows."""

import re
from pathlib import Path

import dagster as dg
import pytest
from support.backfilled import Backfilled

from ingestion.errors import ExchangeRefused
from ingestion.history.month import Outcome
from ingestion.klines import Month, Series
from orchestration.backfill import RunFailed, backfill
from orchestration.history import RAW_KLINES, HistoryLander
from orchestration.partitions import month_symbol_key
from orchestration.warehouse_assets import BARS
from warehouse.serving import run_query


def materializations(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str | None, dg.AssetMaterialization]:
    records = instance.fetch_materializations(key, limit=100).records
    return {record.partition_key: record.asset_materialization for record in records if record.asset_materialization}


def test_there_is_one_run_per_symbol_then_one_to_build_and_one_to_publish(
    backfilled: Backfilled, instance: dg.DagsterInstance
) -> None:
    assert backfilled.runs == ["land BTCUSDT", "land SOLUSDT", "build bars and indicators", "publish"]
    runs = instance.get_runs()
    assert sorted(run.job_name for run in runs) == ["build_bars", "land_history", "land_history", "publish"]
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_each_month_of_each_symbol_shows_as_a_partition_with_its_rows(instance: dg.DagsterInstance) -> None:
    found = materializations(instance, RAW_KLINES)
    rows = {key: event.metadata["dagster/partition_row_count"].value for key, event in found.items()}
    august, september = 31 * 288, 30 * 288
    assert rows == {
        str(month_symbol_key(Month(2020, 8), "BTCUSDT")): august,
        str(month_symbol_key(Month(2020, 9), "BTCUSDT")): september,
        # Listed on 2020-08-11 06:00.
        str(month_symbol_key(Month(2020, 8), "SOLUSDT")): august - 10 * 288 - 72,
        str(month_symbol_key(Month(2020, 9), "SOLUSDT")): september,
    }


def test_the_main_table_has_rows_per_month_and_a_chart_on_the_newest(instance: dg.DagsterInstance) -> None:
    found = materializations(instance, BARS)
    assert found.keys() == {"2020-08", "2020-09"}
    # 5m, 15m, 1h, 4h and 1d bars of two symbols over thirty days.
    assert found["2020-09"].metadata["dagster/partition_row_count"].value == 2 * 30 * (288 + 96 + 24 + 6 + 1)
    assert "data:image/png;base64," in str(found["2020-09"].metadata["chart"].value)
    assert "chart" not in found["2020-08"].metadata


@pytest.mark.parametrize("key", [RAW_KLINES, BARS])
def test_every_month_says_that_it_was_simulated(instance: dg.DagsterInstance, key: dg.AssetKey) -> None:
    origins = {event.metadata["came_from"].value for event in materializations(instance, key).values()}
    assert origins == {"the simulated exchange (seed 1)"}


def test_dimensions_tell_their_rows(instance: dg.DagsterInstance) -> None:
    rows = {
        name: materializations(instance, dg.AssetKey(name))[None].metadata["dagster/row_count"].value
        for name in ("dim_dates", "dim_hours", "dim_symbols")
    }
    assert rows == {"dim_dates": 61, "dim_hours": 24, "dim_symbols": 2}


def test_dbt_tests_and_our_own_checks_are_recorded_as_asset_checks(instance: dg.DagsterInstance) -> None:
    events = instance.get_event_records(dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), limit=100)
    passed = {}
    for record in events:
        event = record.event_log_entry.dagster_event
        assert event is not None
        evaluation = event.asset_check_evaluation_data
        passed[evaluation.asset_key.to_user_string(), evaluation.check_name] = evaluation.passed
    assert passed["market_data_unified", "complete"]
    assert not passed["market_data_unified", "fresh"], "bars of 2020 are not fresh, however lately they were built"
    assert passed["market_data_unified", "market_data_unified_ohlc_rules"]
    assert passed["dim_symbols", "dim_symbols_covers_bars"]
    assert passed["raw_klines", "nothing_in_quarantine"]


def test_what_was_backfilled_can_be_queried(backfilled: Backfilled) -> None:
    question = "select symbol, count(*) from market_data_unified where \"interval\" = '1d' group by all order by all"
    counts = run_query(backfilled.settings, question)
    assert counts.rows == [("BTCUSDT", 61), ("SOLUSDT", 51)]


def test_landing_again_downloads_nothing(backfilled: Backfilled) -> None:
    again = HistoryLander(backfilled.settings).land([Series("BTCUSDT", "5m")], [Month(2020, 8), Month(2020, 9)])
    assert [(result.outcome, result.downloads) for result in again] == [(Outcome.UNCHANGED, 0)] * 2


def test_a_run_that_fails_names_itself(backfilled: Backfilled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HistoryLander, "land", lambda *args: 1 / 0)
    with (backfilled.settings.home / "log").open("a") as log, pytest.raises(RunFailed, match="land_history"):
        backfill(backfilled.settings, [Month(2020, 8)], on_run=lambda run: None, on_month=lambda month: None, log=log)


def test_an_error_of_ours_comes_through_a_run_as_it_is(backfilled: Backfilled, tmp_path: Path) -> None:
    elsewhere = backfilled.settings.model_copy(update={"archive_url": "http://127.0.0.1:9", "http_attempts": 1})
    empty = elsewhere.model_copy(update={"home": tmp_path})
    with (tmp_path / "log").open("a") as log, pytest.raises(ExchangeRefused, match=re.escape("127.0.0.1:9")):
        backfill(empty, [Month(2020, 8)], on_run=lambda run: None, on_month=lambda month: None, log=log)
