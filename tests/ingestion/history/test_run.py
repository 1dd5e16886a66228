"""Whole runs against the simulated exchange: the truth is the market that it serves."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import urllib3

from ingestion.binance.archive import daily_path, monthly_path
from ingestion.errors import DataQuarantined, ExchangeRefused
from ingestion.grid import micros
from ingestion.history.month import MonthResult, Outcome
from ingestion.history.run import land_history, plan_history, raise_for
from ingestion.klines import Month, Series, months_between
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings, load_settings
from ingestion.simulator.faults import NO_FAULTS, Faults
from ingestion.simulator.market import Market
from ingestion.simulator.server import build_app, running

NOW = datetime(2024, 11, 10, 12, 34, 56, tzinfo=UTC)
MONTHS = months_between(NOW.date() - timedelta(days=130), NOW.date())
BTC, MATIC, POL = (Series(symbol, "1h") for symbol in ("BTCUSDT", "MATICUSDT", "POLUSDT"))
EVERY = (BTC, MATIC, POL)

Truth = list[tuple[int, int, int]]


def name_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def truth(series: Series, month: Month, now: datetime = NOW) -> Truth:
    """Open time, close time and close (in units of 10^-8) of the bars that have closed by `now`."""
    bars = Market(1).bars(series, month)
    if bars is None:
        return []
    rows = zip(bars.open_time.tolist(), bars.close_time.tolist(), bars.close.tolist(), strict=True)
    return [row for row in rows if row[1] < micros(now)]


def landed(settings: Settings, series: Series, month: Month) -> Truth:
    found = RawZone(settings.raw_root).read_landed(series, month)
    if found is None:
        return []
    rows = found[0]
    columns = [rows[name].cast(pa.int64()).to_pylist() for name in ("open_time", "close_time")]
    return list(zip(*columns, (int(close.scaleb(8)) for close in rows["close"].to_pylist()), strict=True))


def in_milliseconds(rows: Truth) -> Truth:
    """Close times as REST and the archive before 2025 give them."""
    return [(opens, closes // 1000 * 1000, close) for opens, closes, close in rows]


class Run:
    """Landing from a simulated exchange; what it was asked and which faults fired can be read while it runs."""

    def __init__(self, url: str, home: Path, **settings: Any) -> None:
        self._url = url
        self.settings = load_settings(
            archive_url=url, home=home, **{"max_wait": 60.0, "download_workers": 4} | settings
        )

    def land(self, *series: Series, months: list[Month] = MONTHS) -> list[MonthResult]:
        return land_history(self.settings, series or EVERY, months)

    def told(self, page: str) -> Any:
        return urllib3.request("GET", f"{self._url}/simulator/{page}").json()

    def log(self) -> dict[str, Any]:
        """The newest log."""
        paths = sorted((self.settings.home / "logs" / "history").rglob("execution_*.json"))
        return json.loads(paths[-1].read_text())

    def assert_true(self, series: tuple[Series, ...] = EVERY, months: list[Month] = MONTHS) -> None:
        for one in series:
            for month in months:
                assert landed(self.settings, one, month) == in_milliseconds(truth(one, month)), (one, month)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    faults = getattr(request, "param", NO_FAULTS)
    with running(build_app(faults=faults, now=NOW)) as url:
        yield Run(url, tmp_path)


# --- everything is well ----------------------------------------------------------------------------------------


def test_a_run_lands_the_truth_up_to_the_last_closed_bar(run: Run) -> None:
    results = run.land()
    run.assert_true()
    assert [(result.series, result.month) for result in results] == [(s, m) for s in EVERY for m in MONTHS]
    assert all(result.problems == () == result.missing for result in results)
    raise_for(results)
    assert (
        landed(run.settings, BTC, MONTHS[-1])[-1][0] == int(datetime(2024, 11, 10, 11, tzinfo=UTC).timestamp()) * 10**6
    )


def test_a_renamed_symbol_has_its_bars_on_each_side_and_none_between(run: Run) -> None:
    results = {(result.series, str(result.month)): result for result in run.land(MATIC, POL)}
    assert results[POL, "2024-08"].outcome is Outcome.ABSENT
    assert results[MATIC, "2024-10"].rows == 0
    september = Month(2024, 9)
    assert landed(run.settings, MATIC, september)[-1][0] == micros(datetime(2024, 9, 10, 2, tzinfo=UTC))
    assert landed(run.settings, POL, september)[0][0] == micros(datetime(2024, 9, 13, 10, tzinfo=UTC))
    zone = RawZone(run.settings.raw_root)
    assert zone.provenance(POL, september).holes == ()
    [hole] = zone.provenance(MATIC, september).holes
    assert hole == (datetime(2024, 9, 10, 3, tzinfo=UTC), september.end)


def test_a_second_run_downloads_nothing_and_changes_no_file(run: Run) -> None:
    run.land()
    raw = Path(run.settings.raw_root)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in raw.rglob("*") if path.is_file()}
    asked = run.told("requests")
    again = run.land()
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in raw.rglob("*") if path.is_file()}
    assert after == before
    assert {result.outcome for result in again} <= {Outcome.UNCHANGED, Outcome.ABSENT}
    assert sum(result.downloads for result in again) == 0
    assert run.told("requests")["klines"] - asked["klines"] <= len(MONTHS), "no bar is asked for twice"


def test_a_plan_asks_the_exchange_for_nothing(run: Run) -> None:
    plans = plan_history(run.settings, EVERY, MONTHS)
    assert [(plan.series, plan.month) for plan in plans] == [(s, m) for s in EVERY for m in MONTHS]
    assert all(plan.plan.monthly and plan.landed_rows is None for plan in plans)
    assert run.told("requests") == {}
    assert not run.settings.home.joinpath("raw").exists()


@pytest.mark.parametrize("interval", ["15m", "12h", "1d", "3d", "1w", "1M"])
def test_every_kind_of_interval_lands_the_truth(run: Run, interval: str) -> None:
    series = Series("BTCUSDT", interval)
    run.land(series)
    for month in MONTHS:
        assert landed(run.settings, series, month) == in_milliseconds(truth(series, month)), month
    assert all(truth(series, month) for month in MONTHS[:-1])


# --- nothing is well -------------------------------------------------------------------------------------------

_JULY, _AUGUST, _SEPTEMBER, _OCTOBER, _NOVEMBER = MONTHS
STALE = (name_of(monthly_path(BTC, _JULY)), name_of(daily_path(BTC, _NOVEMBER.first_day)))
TRUNCATED = (name_of(monthly_path(BTC, _SEPTEMBER)), name_of(monthly_path(MATIC, _AUGUST)))
MISSING = (name_of(monthly_path(BTC, _OCTOBER)), name_of(monthly_path(POL, _OCTOBER)))
TROUBLE = Faults(
    errors=0.05,
    stale_checksum=STALE,
    truncated_zip=TRUNCATED,
    missing_monthly=MISSING,
    weight_limit=4,
    weight_window=1.0,
    patience=1000,
)


@pytest.mark.parametrize("run", [TROUBLE], indirect=True, ids=["trouble"])
def test_a_run_full_of_trouble_lands_the_same_rows_and_tells_all(run: Run) -> None:
    results = run.land()
    run.assert_true()
    fired = run.told("fired")["fired"]
    for fault in ("errors", "stale_checksum", "truncated_zip", "missing_monthly", "429"):
        assert fired[fault] > 0, fault
    assert "418" not in fired

    told = {name_of(problem.url): problem for result in results for problem in result.problems}
    assert set(told) == {*STALE, *TRUNCATED}
    for name, problem in told.items():
        assert Path(problem.kept_in).name == name
        day = len(name.removesuffix(".zip").split("-")) == 5
        symbol, month = name.split("-")[0], Month.parse("-".join(name.removesuffix(".zip").split("-")[2:4]))
        bars = 24 if day else len(truth(Series(symbol, "1h"), month))
        assert problem.replaced_by == f"{bars} bars of {'rest' if day else 'archive_daily'}"
    assert sorted(note["name"] for note in RawZone(run.settings.raw_root).quarantined()) == sorted(told)
    with pytest.raises(DataQuarantined, match=r"^4 files or rows") as caught:
        raise_for(results)
    assert caught.value.exit_code == 5

    traffic = run.log()["traffic"]
    assert traffic["retries"] == fired["errors"]
    assert traffic["rate_limit_waits"] > 0
    assert traffic["requests"] == sum(run.told("requests").values())


@pytest.mark.parametrize(
    "run", [Faults(missing_monthly=1.0, weight_limit=6, patience=0, ban_seconds=0.5, weight_window=3.0)], indirect=True
)
def test_a_ban_is_waited_out_and_nobody_asks_meanwhile(run: Run) -> None:
    series = Series("BTCUSDT", "3d")  # of which there are no daily files: REST has to give every month
    results = run.land(series)
    run.assert_true((series,))
    bans = run.told("fired")["fired"]["ban"]
    assert bans > 0
    # Only those that were on their way when a ban came: at most one of each other worker.
    assert run.told("requests").get("while_banned", 0) <= bans * (run.settings.download_workers - 1)
    assert run.log()["traffic"]["waited_s"] > 0
    raise_for(results)


@pytest.mark.parametrize("run", [Faults(weight_limit=0, patience=0, ban_seconds=9000.0)], indirect=True, ids=["ban"])
def test_a_ban_beyond_max_wait_is_reported_and_never_hammered(run: Run) -> None:
    results = run.land()
    assert run.told("fired")["fired"]["ban"] == 1
    asked = run.told("requests")
    assert asked.get("while_banned", 0) == 0
    assert sum(asked.get(kind, 0) for kind in ("klines", "time")) == 1
    assert len(landed(run.settings, BTC, _JULY)) == 744
    incomplete = [result for result in results if result.outcome is Outcome.INCOMPLETE]
    with pytest.raises(ExchangeRefused, match=rf"{len(incomplete)} months could not be completed: .*banned"):
        raise_for(results)
    assert incomplete


@pytest.mark.parametrize("run", [Faults(blocked=451)], indirect=True, ids=["451"])
def test_a_country_that_is_not_served_is_told_what_to_do(run: Run) -> None:
    with pytest.raises(ExchangeRefused) as caught:
        run.land()
    assert "KLINEHOUSE_ARCHIVE_URL" in caught.value.remedy
    assert run.log()["error"].startswith("ExchangeRefused: ")


@pytest.mark.parametrize("run", [Faults(stale_checksum=STALE, heal_after=2)], indirect=True, ids=["healing"])
def test_what_heals_at_the_source_heals_here(run: Run) -> None:
    first = run.land(BTC)
    assert sum(len(result.quarantined) for result in first) == len(STALE)
    second = run.land(BTC)
    assert [problem for result in second for problem in result.problems] == []
    assert RawZone(run.settings.raw_root).quarantined() == []
    run.assert_true((BTC,))
    sources = RawZone(run.settings.raw_root).provenance(BTC, _JULY).sources
    assert sources == ("archive_monthly",)


@pytest.mark.parametrize(
    "run", [Faults(short_monthly=(name_of(monthly_path(BTC, _JULY)),))], indirect=True, ids=["short"]
)
def test_a_monthly_file_with_a_third_of_its_rows_is_completed(run: Run) -> None:
    run.land(BTC)
    assert run.told("fired")["fired"]["short_monthly"] > 0
    run.assert_true((BTC,))


@pytest.mark.parametrize("run", [Faults(archive_differs=0.02, late_monthly=3.0)], indirect=True, ids=["differs"])
def test_the_archive_is_believed_before_rest(run: Run) -> None:
    run.land(BTC)
    planted = {one["open_time"] for one in run.told("fired")["differences"]}
    assert planted
    zone = RawZone(run.settings.raw_root)
    for month in MONTHS:
        rows = zone.read_history(BTC, month)
        expected = {opens: close for opens, _, close in truth(BTC, month)}
        opens = rows["open_time"].cast(pa.int64()).to_pylist()
        for opened, close, source in zip(opens, rows["close"].to_pylist(), rows["source"].to_pylist(), strict=True):
            if source == "rest" or opened not in planted:
                assert int(close.scaleb(8)) == expected[opened]


# --- the log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [Faults(truncated_zip=TRUNCATED, missing_monthly=MISSING)], indirect=True, ids=["some"])
def test_the_log_is_true_to_the_results(run: Run) -> None:
    results = run.land()
    log = run.log()
    assert log["error"] is None
    for entry in log["series"]:
        own = [r for r in results if (r.series.symbol, r.series.interval) == (entry["symbol"], entry["interval"])]
        files = [file for result in own for file in result.files]
        assert entry["months"] == Counter(str(result.outcome) for result in own)
        assert entry["rows"] == sum(result.rows for result in own)
        assert entry["files"] == Counter(file.source for file in files)
        assert entry["bytes"] == sum(file.bytes for file in files)
        assert entry["quarantined"] == sum(len(result.quarantined) for result in own)
        assert entry["dropped_rows"] == {"duplicates": 0, "conflicts": 0, "broken": 0}
    assert {entry["symbol"] for entry in log["series"]} == {one.symbol for one in EVERY}
    told = {(problem["url"], problem["reason"], problem["replaced_by"]) for problem in log["problems"]}
    assert told == {(p.url, p.reason, p.replaced_by) for result in results for p in result.problems}
    assert datetime.fromisoformat(log["started_at"]) <= datetime.fromisoformat(log["ended_at"])


def test_a_log_lies_by_the_day_of_its_run(run: Run) -> None:
    run.land(BTC, months=[_JULY])
    [path] = (run.settings.home / "logs" / "history").rglob("*.json")
    begin = datetime.fromisoformat(run.log()["started_at"])
    assert path.parent == run.settings.home / "logs" / "history" / f"{begin:%Y}" / f"{begin:%m}" / f"{begin:%d}"
    assert path.name == f"execution_{begin:%Y-%m-%dT%H-%M-%S.%fZ}.json"


def test_every_month_is_heard_of_when_it_is_done(run: Run) -> None:
    heard: list[MonthResult] = []
    results = land_history(run.settings, [BTC], MONTHS, on_result=heard.append)
    assert sorted(heard, key=lambda result: result.month) == results


def test_a_run_that_fails_begins_no_further_month(run: Run) -> None:
    heard: list[MonthResult] = []

    def fail(result: MonthResult) -> None:
        heard.append(result)
        raise KeyboardInterrupt

    settings = run.settings.model_copy(update={"download_workers": 1})
    with pytest.raises(KeyboardInterrupt):
        land_history(settings, [BTC], MONTHS, on_result=fail)
    assert len(heard) < len(MONTHS)
    assert run.log()["error"].startswith("KeyboardInterrupt")


# --- what a run answers for ------------------------------------------------------------------------------------


def test_months_not_completed_are_counted_as_months(run: Run) -> None:
    # The archive has nothing of POLUSDT in these months, so REST would have to say that it was not traded.
    settings = run.settings.model_copy(update={"rest_url": "http://127.0.0.1:9", "http_attempts": 1})
    results = land_history(settings, [POL, BTC], MONTHS[:2])
    assert [result.outcome for result in results] == [Outcome.INCOMPLETE] * 2 + [Outcome.LANDED] * 2
    with pytest.raises(ExchangeRefused, match=r"^2 months could not be completed: .*127\.0\.0\.1:9"):
        raise_for(results)
