"""Landing, killed before every call that changes files, and its mutants."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.kills import ALL_POINTS, first_problem, kill_everywhere
from faults.mutants import LANDING_MUTANTS
from faults.scenarios import Scenario, landings

# How many calls from kill to kill: most of the form in which most happens, some of the others.
FORMS = {
    "first months": 6,
    "a bad file in a running month": 6,
    "a month over its days": 5,
    "files that changed": 3,
    "bad months": 6,
}


@pytest.fixture(scope="module")
def scenarios(forks: Forks, folder: Path) -> Iterator[dict[str, Scenario]]:
    with landings(forks, folder, folder / "home") as found:
        yield {scenario.name: scenario for scenario in found}


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_anywhere_loses_doubles_and_tears_nothing(
    forks: Forks, scenarios: dict[str, Scenario], form: str
) -> None:
    every = 1 if ALL_POINTS else FORMS[form]
    report = kill_everywhere(forks, scenarios[form], every)
    assert report.problems == []
    # Threads may both make a folder, or one for the other: a few calls come and go with that.
    assert report.points >= 0.75 * scenarios[form].calls // every
    if ALL_POINTS:
        assert report.kills.keys() >= {"open", "write", "fsync", "rename"}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_acknowledged_has_been_made_durable(forks: Forks, scenarios: dict[str, Scenario], form: str) -> None:
    scenario = scenarios[form]
    scenario.restore()
    assert violations(forks.run(scenario.step).calls, Path(scenario.step.home)) == []


def test_the_forms_reach_every_kind_of_file(scenarios: dict[str, Scenario]) -> None:
    """Environment, first bars, history, differences, quarantine put there and released."""
    after = [scenario.after for scenario in scenarios.values()]
    folders = {name.split("/")[1 if name.startswith("klines") else 0] for state in after for name in state}
    assert folders == {"environment.json", "first_bars", "history", "differences", "quarantine"}
    released = [scenario.before.keys() - scenario.after.keys() for scenario in scenarios.values()]
    assert any(released)


@pytest.mark.parametrize("name", LANDING_MUTANTS)
def test_a_mutant_is_caught(forks: Forks, scenarios: dict[str, Scenario], name: str) -> None:
    assert first_problem(forks, scenarios[LANDING_MUTANTS[name].form], name)
