"""The sensors of the live path decide rightly, and say what they did."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from support.homes import build_all, home, put, random_walk

from ingestion.klines import Month, Series
from ingestion.settings import Settings
from orchestration import healing, live, watching
from warehouse.serving import publish
from warehouse.streaming import BatchReport

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("running", "due"),
    [
        ([], True),
        ([None], False),
        ([NOW - timedelta(minutes=29)], False),
        ([NOW - timedelta(minutes=31)], True),
        ([NOW - timedelta(minutes=31), None], False),
        ([NOW - timedelta(minutes=50), NOW - timedelta(minutes=45)], False),
    ],
)
def test_a_streaming_run_is_due_when_there_is_none_or_the_only_one_gets_old(
    running: list[datetime | None], due: bool
) -> None:
    assert live.is_due(running, NOW) is due


def test_the_sensor_starts_a_streaming_run_where_there_is_none(tmp_path: Path) -> None:
    sensor = live.keep_streaming(home(tmp_path))
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance)
        assert isinstance(sensor(context), dg.RunRequest)
        instance.create_run_for_job(_empty_job(live.STREAM), status=dg.DagsterRunStatus.STARTED)
        assert isinstance(sensor(context), dg.SkipReason)


def test_the_sensor_replaces_a_run_whose_process_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ALIVE_WITHIN", timedelta(0))
    settings = home(tmp_path)
    sensor = live.keep_streaming(settings)
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(_empty_job(live.STREAM))
        started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, live.STREAM)
        instance.report_dagster_event(started, run.run_id)
        context = dg.build_sensor_context(instance=instance)
        with live._sign_of_life(settings, run.run_id):
            assert isinstance(sensor(context), dg.SkipReason)
        assert isinstance(sensor(context), dg.RunRequest)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
        sensor(context)
        assert list(live.signs_of_life(settings).iterdir()) == []


def _empty_job(name: str) -> dg.JobDefinition:
    @dg.job(name=name)
    def job() -> None:
        pass

    return job


def test_the_metadata_of_a_batch_are_what_the_interface_plots() -> None:
    report = BatchReport(3, 3, 4, ("no kline",), NOW, 0.75, 0.7, 12, 0.5)
    metadata = live.batch_metadata(report)
    assert {name: metadata[name] for name in ("dagster/row_count", "series", "messages", "refused", "backlog")} == {
        "dagster/row_count": 3,
        "series": 3,
        "messages": 4,
        "refused": 1,
        "backlog": 12,
    }
    assert (metadata["watermark_lag_s"], metadata["system_lag_s"], metadata["batch_seconds"]) == (0.75, 0.7, 0.5)


def test_the_metadata_of_a_batch_without_bars_have_no_lag() -> None:
    assert "system_lag_s" not in live.batch_metadata(BatchReport(0, 0, 1, ("no kline",), None, None, None, 0, 0.1))


def test_a_home_may_have_no_live_path(tmp_path: Path) -> None:
    assert live.live_status(home(tmp_path, streaming=False)) == dg.DefaultSensorStatus.STOPPED
    assert live.live_status(home(tmp_path)) == dg.DefaultSensorStatus.RUNNING


def test_symbols_without_a_bar_for_ten_minutes_of_the_exchanges_time_stand_still() -> None:
    newest = {"BTCUSDT": NOW - timedelta(minutes=9), "ETHUSDT": NOW - timedelta(minutes=11)}
    assert watching.stalled(newest, ("BTCUSDT", "ETHUSDT", "SOLUSDT"), NOW) == ["ETHUSDT", "SOLUSDT"]


def test_an_exchange_that_does_not_answer_fails_the_check_and_says_so(tmp_path: Path) -> None:
    settings = home(tmp_path, archive_url="http://127.0.0.1:9", rest_url="http://127.0.0.1:9", http_attempts=1)
    evaluation = watching._judged(settings)
    assert not evaluation.passed
    assert "127.0.0.1:9" in str(evaluation.metadata["reason"].value)


@pytest.fixture(scope="module")
def with_gap(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose published bars lack two days that nobody has asked the exchange about."""
    settings = home(tmp_path_factory.mktemp("gap"), symbols="BTCUSDT", interval="1h")
    series = Series("BTCUSDT", "1h")
    put(settings, series, random_walk(series, datetime(2024, 1, 1, tzinfo=UTC), 24 * 60, missing=range(700, 748)))
    build_all(settings)
    publish(settings)
    return settings


def test_missing_bars_are_asked_for_once_an_hour(with_gap: Settings) -> None:
    request = healing.heal_sensor(with_gap)(dg.build_sensor_context())
    assert isinstance(request, dg.RunRequest)
    missing = {Series("BTCUSDT", "1h"): [Month(2024, 1), Month(2024, 2)]}
    keys = [healing.run_key(missing, NOW + step * HOUR / 2) for step in range(3)]
    assert (keys[0] == keys[1], keys[1] == keys[2]) == (True, False)
    assert request.run_key is not None
    assert request.run_key.endswith("BTCUSDT 1h 2024-01 2024-02")


def test_nothing_is_asked_for_before_anything_is_published(tmp_path: Path) -> None:
    settings = home(tmp_path)
    for sensor in (healing.heal_sensor(settings), watching.watch_ingestion(settings)):
        assert isinstance(sensor(dg.build_sensor_context()), dg.SkipReason)
