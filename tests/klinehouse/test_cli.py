"""The command line as a user meets it: real processes, exit codes, JSON, one-line errors."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import KLINEHOUSE, answer, run
from typer.testing import CliRunner

from ingestion.simulator.server import build_app, running
from klinehouse.cli import app

COMMANDS = [
    *("backfill", "land", "build", "status", "query", "config", "simulate", "doctor", "demo", "up"),
    *("coverage", "gaps", "heal", "why", "check", "reconcile", "symbols"),
]


@pytest.fixture(scope="module")
def exchange() -> Iterator[str]:
    with running(build_app(seed=1)) as address:
        yield address


@pytest.fixture(scope="module")
def filled(exchange: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a home that `land` and `build` have filled with two months of one symbol at 1h."""
    home = tmp_path_factory.mktemp("home")
    settings = {"home": str(home), "archive_url": exchange, "symbols": "BTCUSDT", "interval": "1h"}
    answer("land", "--start", "2024-01", "--end", "2024-03", **settings)
    answer("build", **settings)
    return settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])  # in this process: each of its own takes a second to begin
    assert done.exit_code == 0
    assert f"klinehouse {command}" in done.stdout.split("Examples:")[1]


def test_landing_says_what_landed(exchange: str, tmp_path: Path) -> None:
    arguments = ["land", "--symbols", "BTCUSDT", "--interval", "1h", "--start", "2024-01", "--end", "2024-03"]
    settings = {"home": str(tmp_path / "home"), "archive_url": exchange}
    first, again = answer(*arguments, **settings), answer(*arguments, **settings)
    assert first["source_environment"] == "simulated"
    assert [(one["rows"], one["landed"], one["downloads"]) for one in first["series"]] == [(1440, 2, 2)]
    assert [(one["rows"], one["unchanged"], one["downloads"]) for one in again["series"]] == [(1440, 2, 0)]


def test_status_shows_series_extent_and_origin(filled: dict[str, str]) -> None:
    found = answer("status", **filled)
    assert (found["source_environment"], found["simulation"]) == ("simulated", "seed 1")
    raw = next(one for one in found["series"] if one["layer"] == "raw")
    assert (raw["rows"], raw["first_open_time"]) == (1440, "2024-01-01T00:00:00Z")
    assert (found["live"], found["bus"]) == ([], None)


def test_people_are_told_that_data_are_simulated(filled: dict[str, str]) -> None:
    for arguments in (["status"], ["query", "select 1"]):
        assert "SIMULATED DATA" in run(*arguments, **filled).stderr


def test_query_answers_as_json_and_as_a_table(filled: dict[str, str]) -> None:
    question = "select symbol, count(*) as bars from market_data_unified where \"interval\" = '1d' group by all"
    assert answer("query", question, **filled) == [{"symbol": "BTCUSDT", "bars": 60}]
    assert "BTCUSDT" in run("query", question, **filled).stdout


def test_config_prints_effective_values_with_passwords_masked() -> None:
    found = answer("config", archive_url="http://user:secret@127.0.0.1:1", symbols="ADAUSDT,XRPUSDT")
    assert found["archive_url"] == "http://user:***@127.0.0.1:1"
    assert found["symbols"] == ["ADAUSDT", "XRPUSDT"]


def test_doctor_finds_a_good_home_well(filled: dict[str, str]) -> None:
    assert all(finding["ok"] for finding in answer("doctor", **filled)["findings"])


def test_doctor_names_an_exchange_that_does_not_answer(tmp_path: Path) -> None:
    done = run("doctor", "--json", home=str(tmp_path), archive_url="http://127.0.0.1:9")
    bad = [finding["what"] for finding in json.loads(done.stdout)["findings"] if not finding["ok"]]
    assert (done.returncode, bad) == (4, ["archive answers", "REST answers"])


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # A file where the folder should be: also root cannot write below it.
    blocked = tmp_path / "blocked"
    blocked.touch()
    done = run("land", "--start", "2024-01", "--end", "2024-02", home=str(blocked / "home"))
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert str(blocked) in done.stderr
    assert "KLINEHOUSE_HOME" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "says"),
    [
        (["land", "--start", "yesterday"], {}, 2, "--start"),
        (["land", "--start", "2024-02", "--end", "2024-01"], {}, 2, "--end"),
        (["land", "--symbols", "btcusdt"], {}, 3, "KLINEHOUSE_SYMBOLS"),
        (["land", "--no-such-option"], {}, 2, "--no-such-option"),
        (["config"], {"interval": "7m"}, 3, "KLINEHOUSE_INTERVAL"),
        (["query", "select 1"], {}, 3, "klinehouse backfill"),
        (["build"], {}, 3, "klinehouse land"),
        (["land", "--start", "2024-01", "--end", "2024-02"], {"http_attempts": "1"}, 4, "127.0.0.1:9"),
    ],
)
def test_errors_are_one_clear_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, says: str
) -> None:
    done = run(*arguments, home=str(tmp_path / "home"), archive_url="http://127.0.0.1:9", **environment)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    done = run("query", "select 1", "--json", home=str(tmp_path))
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"], error["exit_code"]) == (3, "configuration", 3)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in run("--debug", "query", "select 1", home=str(tmp_path)).stderr


def test_a_query_that_is_wrong_is_told_what_is_wrong(filled: dict[str, str]) -> None:
    done = run("query", "select no_such_column from market_data_unified", **filled)
    assert done.returncode == 2
    assert "no_such_column" in done.stderr


def test_a_symbol_that_the_exchange_does_not_have_is_refused(filled: dict[str, str]) -> None:
    done = run("land", "--start", "2024-01", "--end", "2024-02", **filled | {"symbols": "NOSUCHUSDT"})
    assert done.returncode == 4
    assert "NOSUCHUSDT" in done.stderr


def test_real_and_simulated_data_never_mix(filled: dict[str, str]) -> None:
    with running(build_app(seed=2)) as other:
        done = run("land", "--start", "2024-03", "--end", "2024-04", **filled | {"archive_url": other})
    assert done.returncode == 3
    assert "seed 1" in done.stderr
    assert "seed 2" in done.stderr


def test_quarantined_data_end_with_their_own_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "data/spot/monthly/klines/BTCUSDT/1h"
    folder.mkdir(parents=True)
    (folder / "BTCUSDT-1h-2024-01.zip").write_bytes(b"this is no zip")
    with running(build_app(data=tmp_path)) as address:
        settings = {"home": str(tmp_path / "home"), "archive_url": address, "symbols": "BTCUSDT", "interval": "1h"}
        done = run("land", "--start", "2024-01", "--end", "2024-02", **settings)
    assert done.returncode == 5
    assert "BTCUSDT-1h-2024-01.zip" in done.stdout
    assert "BTCUSDT-1h-2024-01.zip" in run("status", **settings).stderr


def test_a_busy_warehouse_has_its_own_exit_code(filled: dict[str, str]) -> None:
    hold = (
        "import sys; from ingestion.settings import load_settings; from warehouse.engine import writing\n"
        "with writing(load_settings(home=sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, filled["home"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = run("build", **filled | {"warehouse_wait": "0"})
        holder.communicate()
    assert done.returncode == 6
    assert "KLINEHOUSE_WAREHOUSE_WAIT" in done.stderr


def test_the_simulated_exchange_announces_its_address_and_stops_on_a_signal() -> None:
    with subprocess.Popen(
        [KLINEHOUSE, "simulate", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        announced = json.loads(server.stdout.readline())
        server.terminate()
        server.wait(timeout=20)
    assert announced["url"].startswith("http://127.0.0.1:")
    assert announced["seed"] == 1


def test_servers_bind_to_loopback_unless_told_otherwise() -> None:
    assert answer("config")["ui_host"] == "127.0.0.1"
    assert "127.0.0.1" in run("simulate", "--help").stdout


def test_a_finding_too_long_for_a_table_is_shown_whole(tmp_path: Path) -> None:
    shown = run("doctor", home=str(tmp_path), archive_url="http://127.0.0.1:9").stdout
    assert "FAILED" in shown
    assert "what has landed is kept." in shown
