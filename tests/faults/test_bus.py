"""The local bus, killed before every call that changes its files, and while many messages flow; and its mutants."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.kills import first_problem, kill_everywhere
from faults.mutants import QUEUE_MUTANTS
from faults.scenarios import Scenario, queues
from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, Message

FORMS = ["messages published", "messages consumed"]
MESSAGES, KILLS = 20_000, 4
_HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def scenarios(forks: Forks, folder: Path) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in queues(forks, folder, folder / "home")}


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_anywhere_loses_and_tears_nothing(forks: Forks, scenarios: dict[str, Scenario], form: str) -> None:
    report = kill_everywhere(forks, scenarios[form])
    assert report.problems == []
    assert report.points == scenarios[form].calls
    assert report.kills.keys() >= {"open", "pwrite64", "fdatasync", "unlink"}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_answered_has_been_made_durable(forks: Forks, scenarios: dict[str, Scenario], form: str) -> None:
    scenario = scenarios[form]
    scenario.restore()
    assert violations(forks.run(scenario.step).calls, Path(scenario.step.home)) == []


@pytest.mark.parametrize("name", QUEUE_MUTANTS)
def test_a_mutant_is_caught(forks: Forks, scenarios: dict[str, Scenario], name: str) -> None:
    assert first_problem(forks, scenarios[QUEUE_MUTANTS[name].form], name)


def test_killed_consumers_lose_no_message(folder: Path) -> None:
    """Each message is written down before it is acknowledged: what is not written down was lost."""
    path, written = folder / "flow" / "bus.sqlite", folder / "written"
    with LocalBus(path) as bus:
        bus.publish(KLINES, [Message(b"%d" % i) for i in range(MESSAGES)])
    kills = 0
    for number in range(KILLS + 1):
        with consumer(path, written) as process:
            if number < KILLS:
                read_until(process, MESSAGES * (number + 1) // (KILLS + 1))
                process.kill()
            kills += process.wait() == -signal.SIGKILL
    lines = written.read_text().split()
    with LocalBus(path) as bus:
        assert (bus.backlog(MICROBATCH).messages, bus.backlog(DEAD_LETTERS_SUBSCRIPTION).messages) == (0, 0)
    assert kills == KILLS
    assert {int(line) for line in lines} == set(range(MESSAGES))
    assert len(lines) <= MESSAGES + KILLS * 100


@contextmanager
def consumer(path: Path, written: Path) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"PYTHONPATH": str(_HERE.parent.parent)}
    command = [sys.executable, str(_HERE / "programs" / "bus_consumer.py"), str(path), str(written)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", count: int) -> None:
    """Until so many messages have been handled by all consumers together."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= count:
            return
    raise AssertionError(f"The consumer ended with {process.wait()} before {count} messages.")
