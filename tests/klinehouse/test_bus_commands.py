"""The commands of the bus on a local bus, by the entry point; those that run beside others in their own process."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import command

from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, MONITORING, TOPOLOGY, Message
from ingestion.messages import KlineMessage, decode, encode
from ingestion.settings import load_settings
from klinehouse.cli import main

COMMANDS = ["bus init", "bus status", "listen", "dlq list", "dlq show", "dlq replay", "dlq purge"]
# Without backoffs: a message is rejected five times in a row.
FAST = tuple(replace(one, min_backoff=timedelta(0), max_backoff=timedelta(0)) for one in TOPOLOGY)


def kline(symbol: str = "BTCUSDT", minute: int = 0) -> KlineMessage:
    opened = 1_735_689_300_000_000 + minute * 60_000_000
    prices = ("93576.00000000", "93610.93000000", "93537.50000000", "93610.93000000")
    return KlineMessage(
        symbol,
        "5m",
        opened,
        opened + 299_999_000,
        *prices,
        "31.94168000",
        "2989187.47519190",
        7448,
        "16.95217000",
        "1586524.06452780",
        "stream",
        opened + 300_004_000,
        opened + 300_010_123,
    )


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As in a process of its own, which would take a second or two to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["klinehouse", *arguments])
        for name, value in environment.items():
            patch.setenv(f"KLINEHOUSE_{name.upper()}", value)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def answer(*arguments: str, **environment: str) -> Any:
    """The JSON of a command that must succeed."""
    done = run(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


@pytest.fixture
def bus(home: str) -> Iterator[LocalBus]:
    with LocalBus(load_settings(home=home).bus_path, FAST) as opened:
        yield opened


@pytest.fixture
def letters(bus: LocalBus) -> list[str]:
    """Ids of two dead letters: a kline with a broken price, and no kline at all."""
    broken = encode(kline())
    bus.publish(KLINES, [Message(broken.data.replace(b"93576", b"9e5"), broken.attributes), Message(b"\xff\xfe")])
    for _ in range(5):
        received = bus.pull(MICROBATCH, max_messages=2, max_bytes=1 << 20, wait=0)
        reasons = ["open is '9e5', not a decimal string", "it is no JSON"]
        bus.reject(MICROBATCH, list(zip(received, reasons, strict=True)))
    found = bus.pull(DEAD_LETTERS_SUBSCRIPTION, max_messages=2, max_bytes=1 << 20, wait=0)
    bus.extend(DEAD_LETTERS_SUBSCRIPTION, [one.ack_id for one in found], 0)
    return [one.message_id for one in found]


def waiting(bus: LocalBus, subscription: str) -> list[Message]:
    found = bus.pull(subscription, max_messages=100, max_bytes=1 << 20, wait=0)
    bus.extend(subscription, [one.ack_id for one in found], 0)
    return [one.message for one in found]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    done = run(*name.split(), "--help")
    assert done.returncode == 0
    assert f"klinehouse {name}" in done.stdout.split("Examples:")[1]


def test_init_makes_the_queue_and_says_so_once(home: str) -> None:
    path = str(load_settings(home=home).bus_path)
    assert answer("bus", "init", home=home) == {"bus": "local", "created": [path]}
    assert answer("bus", "init", home=home) == {"bus": "local", "created": []}


def test_status_tells_what_each_subscription_has(bus: LocalBus, home: str) -> None:
    bus.publish(KLINES, [encode(kline()), encode(kline(minute=5))])
    bus.pull(MICROBATCH, max_messages=1, max_bytes=1 << 20, wait=0)
    found = {one["subscription"]: one for one in answer("bus", "status", home=home)["subscriptions"]}
    assert [(found[name]["messages"], found[name]["leased"]) for name in (MICROBATCH, MONITORING)] == [(2, 1), (2, 0)]
    assert found[DEAD_LETTERS_SUBSCRIPTION]["oldest"] is None
    assert MICROBATCH in run("bus", "status", home=home).stdout


def test_listening_shows_what_waits_and_leaves_the_micro_batches_alone(bus: LocalBus, home: str) -> None:
    bus.publish(KLINES, [encode(kline()), Message(b"no kline"), encode(kline("ETHUSDT")), encode(kline(minute=5))])
    arguments = ["listen", "--waiting", "--count", "2", "--symbols", "BTCUSDT"]
    done = run(*arguments, "--json", home=home)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["symbol"], one["open_time"]) for one in shown] == [
        (one.symbol, one.open_time) for one in (kline(), kline(minute=5))
    ]
    assert "message 2" in done.stderr
    assert (bus.backlog(MONITORING).messages, len(waiting(bus, MICROBATCH))) == (0, 4)


def test_listening_leaves_what_it_does_not_show(bus: LocalBus, home: str) -> None:
    bus.publish(KLINES, [encode(kline(minute=minute)) for minute in (0, 5, 10)])
    assert run("listen", "--waiting", "--count", "1", home=home).returncode == 0
    assert [decode(one) for one in waiting(bus, MONITORING)] == [kline(minute=5), kline(minute=10)]


def test_listening_shows_what_comes_and_skips_what_was_there(bus: LocalBus, home: str) -> None:
    bus.publish(KLINES, [encode(kline("ETHUSDT"))])
    with subprocess.Popen(
        [command.KLINEHOUSE, "listen", "--count", "1"],
        env=os.environ | {"KLINEHOUSE_HOME": home},
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        while bus.backlog(MONITORING).messages:  # it has skipped the first: now it listens
            assert listener.poll() is None
        bus.publish(KLINES, [encode(kline())])
        shown, _ = listener.communicate(timeout=30)
    assert "BTCUSDT" in shown
    assert "93610.93" in shown
    assert "ETHUSDT" not in shown


def test_listening_ends_at_its_timeout(home: str) -> None:
    done = run("listen", "--timeout", "0.1", "--json", home=home)
    assert (done.returncode, done.stdout) == (0, "")


def test_dead_letters_are_listed_with_their_reason_and_stay(letters: list[str], home: str) -> None:
    for _ in range(2):
        found = answer("dlq", "list", home=home)
        assert [one["id"] for one in found] == letters
    assert (found[0]["attempts"], found[0]["attributes"]["symbol"]) == (5, "BTCUSDT")
    assert found[0]["reason"] == "open is '9e5', not a decimal string"
    assert "it is no JSON" in run("dlq", "list", home=home).stdout


def test_a_dead_letter_is_shown_with_its_data(letters: list[str], home: str) -> None:
    assert json.loads(answer("dlq", "show", letters[0], home=home)["data"])["open"] == "9e5.00000000"
    assert answer("dlq", "show", letters[1], home=home)["data_base64"] == "//4="
    assert "9e5.00000000" in run("dlq", "show", letters[0], home=home).stdout


def test_a_corrected_dead_letter_is_replayed(letters: list[str], home: str, bus: LocalBus, tmp_path: Path) -> None:
    file = tmp_path / "kline.json"
    answer("dlq", "show", letters[0], "--save", str(file), home=home)
    file.write_bytes(file.read_bytes().replace(b"9e5", b"93576"))
    assert answer("dlq", "replay", letters[0], "--data", str(file), home=home) == {"replayed": 1, "left": 0}
    (message,) = waiting(bus, MICROBATCH)
    assert decode(message) == kline()
    assert message.attributes == encode(kline()).attributes
    assert [one["id"] for one in answer("dlq", "list", home=home)] == letters[1:]


def test_a_correction_that_is_no_kline_is_refused(letters: list[str], home: str, tmp_path: Path) -> None:
    file = tmp_path / "kline.json"
    file.write_text("{}")
    done = run("dlq", "replay", letters[0], "--data", str(file), home=home)
    assert done.returncode == 1
    assert "no kline" in done.stderr
    assert len(answer("dlq", "list", home=home)) == 2


def test_all_dead_letters_are_replayed_as_they_were(letters: list[str], home: str, bus: LocalBus) -> None:
    assert answer("dlq", "replay", "--all", home=home) == {"replayed": 2, "left": 0}
    assert {one.data[:2] for one in waiting(bus, MICROBATCH)} == {b'{"', b"\xff\xfe"}
    assert answer("dlq", "list", home=home) == []


def test_a_dead_letter_of_unknown_origin_stays(home: str, bus: LocalBus) -> None:
    bus.publish("crypto-klines-dlq", [Message(b"1")])
    assert answer("dlq", "replay", "--all", home=home) == {"replayed": 0, "left": 1}
    (letter,) = answer("dlq", "list", home=home)
    assert run("dlq", "replay", letter["id"], home=home).returncode == 2


def test_purging_wants_to_be_sure(letters: list[str], home: str) -> None:
    refused = run("dlq", "purge", home=home)
    assert (refused.returncode, "all dead letters, 2," in refused.stderr) == (2, True)
    assert answer("dlq", "purge", "--yes", home=home) == {"purged": 2}
    assert answer("dlq", "list", home=home) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "says"),
    [
        (["dlq", "show", "4711"], {}, 2, "4711"),
        (["dlq", "replay"], {}, 2, "--all"),
        (["dlq", "replay", "1", "--all"], {}, 2, "--all"),
        (["dlq", "replay", "1", "2", "--data", "x"], {}, 2, "--data"),
        (["bus", "status"], {"bus": "kafka"}, 3, "KLINEHOUSE_BUS"),
        (["bus", "init"], {"bus": "pubsub"}, 3, "KLINEHOUSE_PUBSUB_PROJECT"),
    ],
)
def test_errors_are_one_clear_line_and_an_exit_code(
    home: str, arguments: list[str], environment: dict[str, str], code: int, says: str
) -> None:
    done = run(*arguments, home=home, **environment)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert says in done.stderr


def test_a_queue_that_is_none_has_its_own_exit_code(home: str) -> None:
    path = load_settings(home=home).bus_path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"notes " * 1000)
    done = command.run("bus", "status", "--json", home=home)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"]) == (7, "bus_unavailable")
    assert str(path) in error["message"]
