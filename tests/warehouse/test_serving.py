"""Publishing: only what changed, never half, and readers see one version while it goes on."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from support.homes import bars, build_all, compute_tables, copied, home, put, random_walk

from ingestion.errors import ConfigurationError, UsageError
from ingestion.klines import Month, Series
from ingestion.settings import Settings
from warehouse import serving
from warehouse.served_files import ServedFile, merge
from warehouse.serving import publish, reading, run_query, served_files

START = datetime(2024, 1, 1, tzinfo=UTC)
SERIES = Series("BTCUSDT", "1h")
_DUCKDB1 = os.environ.get("KLINEHOUSE_TEST_DUCKDB1")  # read before fixtures clear the environment


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = home(tmp_path_factory.mktemp("built"), symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 24 * 121))
    build_all(settings)
    return settings


@pytest.fixture
def built(template: Settings, tmp_path: Path) -> Settings:
    """Four months of hourly bars, built and not yet published."""
    return copied(template, tmp_path / "home")


def change_month(settings: Settings, seed: int) -> None:
    """Give March other bars and build it."""
    march = Month(2024, 3)
    put(settings, SERIES, random_walk(SERIES, march.start, 24 * 31, seed=seed))
    compute_tables(settings, march.start, march.end)


def test_what_is_served_is_what_is_in_the_warehouse(built: Settings) -> None:
    publish(built)
    with reading(built) as connection:
        served = connection.sql('from crypto_analytics.market_data_unified order by symbol, "interval", open_time')
        assert served.to_arrow_table().to_pylist() == bars(built).to_pylist()


def test_the_view_file_holds_only_views_over_immutable_files(built: Settings) -> None:
    publish(built)
    with duckdb.connect(built.serving_dir / "klinehouse.duckdb", read_only=True) as connection:
        assert connection.sql("select count(*) from duckdb_tables()").fetchall() == [(0,)]
        views = connection.sql("select view_name from duckdb_views() where schema_name = 'crypto_analytics'").fetchall()
    assert {name for (name,) in views} == {
        *("market_data_live", "market_data_unified", "dim_dates", "dim_hours", "dim_symbols"),
        *("klines_gaps", "klines_reconciliation"),
    }


def test_a_month_is_one_file_named_by_series_month_and_version(built: Settings) -> None:
    publish(built)
    folder = built.serving_dir / "crypto_analytics/market_data_unified/symbol=BTCUSDT/interval=1h"
    names = sorted(path.name.split(".")[0] for path in folder.iterdir())
    assert names == ["2024-01", "2024-02", "2024-03", "2024-04"]


def test_a_question_about_one_year_plans_to_read_that_year_only(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, datetime(2023, 12, 1, tzinfo=UTC), 24 * 400))
    compute_tables(settings)
    publish(settings)
    question = "select count(*) from market_data_unified where \"interval\" = '1h'"
    years = {"2023": 24 * 31, "2024": 24 * 366, "2025": 24 * 3}
    for year, count in years.items():
        of_year = f"{question} and open_time >= '{year}-01-01' and open_time < '{int(year) + 1}-01-01'"
        assert run_query(settings, of_year).rows == [(count,)]
        assert str(run_query(settings, f"explain {of_year}").rows).upper().count("FUNCTION: READ_PARQUET") == 1
    assert run_query(settings, question).rows == [(sum(years.values()),)]


def test_publishing_again_writes_nothing_and_names_the_same_version(built: Settings) -> None:
    first = publish(built)
    again = publish(built)
    assert (first.months_written > 0, again.months_written, again.version) == (True, 0, first.version)


def test_only_months_that_changed_get_new_files(built: Settings) -> None:
    publish(built)
    before = {file.path for file in served_files(built)}
    change_month(built, seed=7)
    publish(built)
    changed = {Path(path).name.split(".")[0] for path in before ^ {file.path for file in served_files(built)}}
    # March itself, and April, whose indicators remember it; January and February stay.
    assert changed == {"2024-03", "2024-04"}


def test_a_publish_that_failed_is_made_up_for_by_the_next(built: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(built)
    change_month(built, seed=7)
    with monkeypatch.context() as patched:
        patched.setattr(serving, "swap_views", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(built)
    publish(built)
    assert run_query(built, "select sum(close) from market_data_unified").rows == [
        (pytest.approx(sum(bars(built)["close"].to_pylist())),)
    ]


def test_an_open_connection_keeps_its_version(built: Settings) -> None:
    publish(built)
    question = "select min(low), max(high) from crypto_analytics.market_data_unified where month = 3"
    with reading(built) as connection:
        before = connection.execute(question).fetchall()
        change_month(built, seed=7)
        publish(built)
        assert connection.execute(question).fetchall() == before
    assert run_query(built, question).rows != before


def test_superseded_files_stay_for_the_grace_period_and_then_go(built: Settings) -> None:
    publish(built)
    old = {Path(file.path) for file in served_files(built)}
    for path in old:
        os.utime(path, (0, 0))  # written long ago: the grace period counts from when it is superseded
    change_month(built, seed=7)
    publish(built)
    gone = old - {Path(file.path) for file in served_files(built)}
    assert gone
    assert all(path.exists() for path in gone)
    for path in gone:
        os.utime(path, (0, 0))
    publish(built)
    assert not any(path.exists() for path in gone)


def test_a_month_without_bars_any_more_is_not_served() -> None:
    month = ServedFile("market_data_unified", "a", 1, 1, "BTCUSDT", "1h", "2024-01")
    assert merge([month], {Series("BTCUSDT", "1h"): [Month(2024, 1)]}, []) == []


def test_publishing_before_building_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="klinehouse build"):
        publish(home(tmp_path))


@pytest.mark.parametrize(
    "hostile",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from '{home}/raw/environment.json'",
        "attach '{home}/warehouse/klinehouse.duckdb'",
        "copy (select 1) to '/tmp/klinehouse-escape.csv'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "install httpfs",
        "create table crypto_analytics.t as select 1",
        "drop view crypto_analytics.dim_hours",
    ],
)
def test_a_query_reaches_nothing_but_what_is_served(built: Settings, hostile: str) -> None:
    publish(built)
    with pytest.raises(UsageError):
        run_query(built, hostile.format(home=built.home))


@pytest.mark.duckdb1
def test_drivers_of_duckdb_1_open_it(built: Settings) -> None:
    if not _DUCKDB1 or not Path(_DUCKDB1).exists():
        pytest.skip("KLINEHOUSE_TEST_DUCKDB1 does not name a Python with a DuckDB 1.x driver")
    publish(built)
    program = (
        "import duckdb, sys; assert duckdb.__version__.startswith('1.');"
        "c = duckdb.connect(sys.argv[1], read_only=True);"
        "print(c.execute('select count(*) from crypto_analytics.market_data_unified').fetchone()[0])"
    )
    answer = subprocess.run(
        [_DUCKDB1, "-c", program, str(built.serving_dir / "klinehouse.duckdb")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(answer.stdout) == bars(built).num_rows


def test_changed_months_are_found_by_series() -> None:
    btc, eth = Series("BTCUSDT", "1d"), Series("ETHUSDT", "1d")
    assert serving._by_series([(eth, Month(2024, 1)), (btc, Month(2024, 2)), (btc, Month(2024, 1))]) == {
        Series("BTCUSDT", "1d"): [Month(2024, 1), Month(2024, 2)],
        Series("ETHUSDT", "1d"): [Month(2024, 1)],
    }
