"""Running dbt: windows, arguments, unit tests of the models, and failures that name what failed."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dbt_common.events import event_manager
from dbt_common.events.base_types import msg_from_base_event
from hypothesis import given
from hypothesis import strategies as st
from support.homes import build_all, home, put, random_walk

from ingestion.errors import ConfigurationError
from ingestion.klines import Series
from warehouse import dbt
from warehouse.build import prepared, require_window
from warehouse.dbt import BuildFailed, Window, build_args

START = datetime(2024, 1, 1, tzinfo=UTC)
SERIES = Series("BTCUSDT", "1h")
INSTANTS = st.datetimes(datetime(2017, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@given(INSTANTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_a_run_window_is_the_smallest_of_whole_days_around_what_was_asked(start: datetime, length: timedelta) -> None:
    window = Window.around(start, start + length)
    assert window.start <= start < window.start + timedelta(days=1)
    assert window.end - timedelta(days=1) < start + length <= window.end
    assert {window.start.time(), window.end.time()} == {datetime.min.time()}


def test_a_window_of_whole_days_stays_as_it_is() -> None:
    assert Window.around(START, START + timedelta(days=2)) == Window(START, START + timedelta(days=2))


def test_a_production_run_names_its_window_and_leaves_unit_tests_out() -> None:
    args = build_args(Window(START, START + timedelta(days=31)), "5m")
    assert " ".join(args).startswith("build --exclude-resource-type unit_test")
    assert " ".join(args).endswith("--event-time-start 2024-01-01T00:00:00 --event-time-end 2024-02-01T00:00:00")


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_a_base_interval_longer_than_a_day_is_refused(interval: str) -> None:
    with pytest.raises(ConfigurationError, match=interval):
        build_args(None, interval)


@pytest.mark.parametrize("selection", ["test_type:unit", "tag:unit"])
def test_the_unit_tests_of_models_and_macros_pass(tmp_path: Path, selection: str) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 24))
    with prepared(settings, require_window(settings)):
        ran = dbt.run(settings, ["test", "--select", selection, "--vars", '{"base_interval": "1h"}'])
    assert ran >= 1


def test_a_run_that_nobody_listens_to_makes_no_events_of_what_debugs_dbt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(event_manager, "msg_from_base_event", _heard(heard))
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 24))
    with prepared(settings, require_window(settings)):
        dbt.make_tables(settings, Window(START, START + timedelta(days=1)))
        assert "debug" not in heard
        assert "info" in heard
        heard.clear()
        dbt.run(settings, ["run", "--select", "dim_hours", "--vars", '{"base_interval": "1h"}'], lambda event: None)
    assert "debug" in heard


def _heard(levels: list[str]) -> Callable[..., Any]:
    def message(*args: Any, **options: Any) -> Any:
        made = msg_from_base_event(*args, **options)
        levels.append(made.info.level)
        return made

    return message


def test_schemas_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 24))
    queries: list[str] = []
    with prepared(settings, require_window(settings)):
        dbt.make_tables(settings, Window(START, START + timedelta(days=1)))
        args = ["run", "--select", "dim_hours", "--vars", '{"base_interval": "1h"}']
        dbt.run(settings, args, lambda event: queries.append(event["data"].get("sql", "")))
    assert any("create" in query for query in queries)
    assert not any("create schema" in query.lower() for query in queries)


BREAKS = {
    "market_data_unified_ohlc_rules": {"low": Decimal(10_000)},
    "market_data_unified_volumes": {"taker_buy_base_volume": Decimal(10_000_000)},
    "market_data_unified_no_future_bars": {"close_time": datetime(2100, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("test", BREAKS)
def test_a_bar_that_breaks_a_rule_fails_the_test_of_that_rule(
    tmp_path: Path, test: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    klines = random_walk(SERIES, START, 48).to_pylist()
    klines[30] |= BREAKS[test]
    put(settings, SERIES, pa.Table.from_pylist(klines, schema=random_walk(SERIES, START, 1).schema))
    with pytest.raises(BuildFailed, match=test):
        build_all(settings)
    # Commands write their own answer there.
    assert capfd.readouterr().out == ""


def test_a_second_base_interval_in_one_warehouse_is_refused(tmp_path: Path) -> None:
    first = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(first, SERIES, random_walk(SERIES, START, 48))
    with prepared(first, require_window(first)):
        pass
    second = home(tmp_path, symbols="BTCUSDT", interval="4h")
    put(second, Series("BTCUSDT", "4h"), random_walk(Series("BTCUSDT", "4h"), START, 12))
    with (
        pytest.raises(ConfigurationError, match="built from 1h, not from 4h"),
        prepared(second, require_window(second)),
    ):
        pass


def test_building_before_landing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="klinehouse land"):
        require_window(home(tmp_path))


def test_a_project_is_parsed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    shutil.copytree(dbt.PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs", ".parse.lock"))
    monkeypatch.setattr(dbt, "PROJECT_DIR", project)
    parsed: list[str] = []
    parse = dbt._parse
    monkeypatch.setattr(dbt, "_parse", lambda target, folder: (parsed.append(folder), parse(target, folder)))
    settings = home(tmp_path)
    first = dbt.manifest_path(settings)
    assert dbt.manifest_path(settings) == first
    assert len(parsed) == 1
    seed = project / "seeds" / "quote_assets.csv"
    seed.write_text(f"{seed.read_text()}XYZ\n")
    assert dbt.manifest_path(settings) != first
    assert len(parsed) == 2
    assert not first.exists()
