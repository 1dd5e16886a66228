"""The local bus, killed before every call that changes its files, and its mutants."""

from pathlib import Path

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.kills import first_problem, kill_everywhere
from faults.mutants import QUEUE_MUTANTS
from faults.scenarios import Scenario, queues

FORMS = ["messages published", "messages consumed"]


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
