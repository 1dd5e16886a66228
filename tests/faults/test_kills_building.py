"""The end of a build, and publishing, killed before every call that changes files, and their mutants."""

from pathlib import Path

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.kills import ALL_POINTS, first_problem, kill_everywhere
from faults.mutants import BUILDING_MUTANTS
from faults.scenarios import Scenario, buildings, prepare_warehouse, publishings

# How many calls from kill to kill, see test_kills_landing.
FORMS = {"a month built again": 4, "first publish": 6, "months that changed": 4, "newest bars shown": 1}


@pytest.fixture(scope="module")
def scenarios(forks: Forks, folder: Path) -> dict[str, Scenario]:
    arguments = prepare_warehouse(folder / "home", folder)
    found = [*buildings(forks, folder, folder / "home", arguments), *publishings(forks, folder, folder / "home")]
    return {scenario.name: scenario for scenario in found}


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_anywhere_loses_doubles_and_tears_nothing(
    forks: Forks, scenarios: dict[str, Scenario], form: str
) -> None:
    every = 1 if ALL_POINTS else FORMS[form]
    report = kill_everywhere(forks, scenarios[form], every)
    assert report.problems == []
    # Threads may both make a folder, or one for the other: a few calls come and go with that.
    assert report.points >= 0.75 * scenarios[form].calls // every
    if ALL_POINTS and form != "newest bars shown":
        assert report.kills.keys() >= {"open", "write", "fdatasync", "pwrite64", "unlink"}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_acknowledged_has_been_made_durable(forks: Forks, scenarios: dict[str, Scenario], form: str) -> None:
    scenario = scenarios[form]
    scenario.restore()
    assert violations(forks.run(scenario.step).calls, Path(scenario.step.home)) == []


@pytest.mark.parametrize("name", BUILDING_MUTANTS)
def test_a_mutant_is_caught(forks: Forks, scenarios: dict[str, Scenario], name: str) -> None:
    assert first_problem(forks, scenarios[BUILDING_MUTANTS[name].form], name)
