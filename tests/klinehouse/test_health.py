"""The commands about health as a user meets them."""

import json
from collections.abc import Iterator

import pytest
from support.command import answer, run

from ingestion.simulator.faults import Faults
from ingestion.simulator.outages import Outage
from ingestion.simulator.server import build_app, running

OUTAGE = Outage.parse("2024-01-10T02:30/2024-01-10T05:00")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two months of one symbol at 1h, with a halt, landed and built; the exchange stays up."""
    app = build_app(seed=1, outages=[OUTAGE], faults=Faults(archive_differs=0.01))
    with running(app) as address:
        home = tmp_path_factory.mktemp("health")
        settings = {"home": str(home), "archive_url": address, "symbols": "BTCUSDT", "interval": "1h"}
        answer("land", "--start", "2024-01", "--end", "2024-03", **settings)
        answer("build", **settings)
        yield settings


def test_coverage_is_a_line_per_series_and_a_cell_per_month(filled: dict[str, str]) -> None:
    done = run("coverage", "--start", "2024-01", **filled)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("BTCUSDT 1h"))
    assert line.split()[2].startswith("▓█")
    (series,) = answer("coverage", "--start", "2024-01", **filled)["series"]
    assert [month["state"] for month in series["months"][:3]] == ["exchange outage", "full", "missing"]


def test_gaps_are_listed_with_their_verdict(filled: dict[str, str]) -> None:
    (gap,) = answer("gaps", **filled)
    assert (gap["first_missing_open_time"], gap["missing_bars"]) == ("2024-01-10T03:00:00Z", 2)
    assert (gap["last_close_time"], gap["verdict"]) == ("2024-01-10T02:29:59.999000Z", "exchange")
    assert answer("gaps", "--verdict", "missing", **filled) == []


def test_the_plan_is_printed_and_asks_for_nothing(filled: dict[str, str]) -> None:
    unreachable = filled | {"archive_url": "http://127.0.0.1:9"}
    landed, new = answer("land", "--plan", "--start", "2024-02", "--end", "2024-04", **unreachable)
    assert (landed["landed_rows"], landed["recheck"], landed["monthly"]) == (29 * 24, True, False)
    assert (new["landed_rows"], new["monthly"], len(new["days"])) == (None, True, 31)
    text = run("land", "--plan", "--start", "2024-03", "--end", "2024-04", **unreachable).stdout
    assert "monthly zip, else 31 daily zips, REST for what is missing of 2024-03-01 00:00 to 2024-04-01 00:00" in text


def test_why_tells_the_source_and_the_steps(filled: dict[str, str]) -> None:
    found = answer("why", "BTCUSDT", "1h", "2024-02-05T12:00", **filled)
    (asked,) = found["answers"]
    assert asked["source"] == "archive_monthly"
    assert asked["url"].endswith("BTCUSDT-1h-2024-02.zip")
    assert len(asked["sha256"]) == 64
    assert [step["indicator"] for step in found["steps"]][:2] == ["sma_20", "ema_50"]
    assert "EMA 12" in run("why", "BTCUSDT", "1h", "2024-02-05T12:00", **filled).stdout


@pytest.mark.parametrize(
    ("at", "says"),
    [("2024-01-10T04:00", "lies in a gap"), ("2024-02-05T12:30", "no bar that opens"), ("noon", "is not a time")],
)
def test_why_says_why_there_is_no_bar(filled: dict[str, str], at: str, says: str) -> None:
    done = run("why", "BTCUSDT", "1h", at, **filled)
    assert (done.returncode, says in done.stderr) == (2, True)


def test_the_layers_are_equal(filled: dict[str, str]) -> None:
    found = answer("check", **filled)
    assert (found["raw_rows"], found["differences"]) == (60 * 24 - 2, [])
    assert "all equal" in run("check", **filled).stdout


def test_reconciling_fills_the_table_of_differences(filled: dict[str, str]) -> None:
    compared = answer("reconcile", "--start", "2024-01", "--end", "2024-03", **filled)
    bars = sum(month["differing_bars"] for month in compared)
    assert bars > 3
    counted = "select count(distinct open_time) as bars from klines_reconciliation where other_source = 'rest'"
    assert answer("query", counted, **filled) == [{"bars": bars}]


def test_healing_fetches_exactly_what_is_missing_builds_and_publishes(filled: dict[str, str]) -> None:
    again = answer("heal", "--start", "2024-01", "--end", "2024-03", **filled)
    assert again["series"][0]["months"] == 0
    healed = answer("heal", "--start", "2024-01", "--end", "2024-05", **filled)["series"][0]
    assert (healed["months"], healed["landed"], healed["downloads"]) == (2, 2, 2)
    counted = "select count(*) as bars from market_data_unified where \"interval\" = '1h'"
    assert answer("query", counted, **filled) == [{"bars": 121 * 24 - 2}]


def test_symbols_are_asked_kept_and_searched(filled: dict[str, str]) -> None:
    names = {row["symbol"]: row["status"] for row in answer("symbols", "--refresh", **filled)}
    assert (names["BTCUSDT"], names["MATICUSDT"]) == ("TRADING", "BREAK")
    unreachable = filled | {"archive_url": "http://127.0.0.1:9"}
    (ended,) = answer("symbols", "--status", "BREAK", **unreachable)
    assert (ended["symbol"], ended["base_asset"]) == ("MATICUSDT", "MATIC")


def test_logs_are_json_lines_on_request(filled: dict[str, str]) -> None:
    done = run("land", "--json", "--log-format", "json", "--start", "2024-01", "--end", "2024-02", **filled)
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert (line["event"], line["month"], line["outcome"]) == ("month done", "2024-01", "unchanged")
    assert json.loads(done.stdout)["series"]


def test_a_symbol_that_the_exchange_does_not_know_is_named(filled: dict[str, str]) -> None:
    done = run("land", "--symbols", "BTCUSDT,NOSUCHUSDT", "--start", "2024-01", "--end", "2024-02", **filled)
    assert (done.returncode, "The exchange knows no symbol NOSUCHUSDT." in done.stderr) == (4, True)
