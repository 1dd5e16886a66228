"""The live path, killed before every call that changes files, and its mutants."""

from pathlib import Path

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.kills import first_problem, kill_everywhere
from faults.mutants import LIVE_MUTANTS
from faults.scenarios import Scenario, live

FORMS = ["bars collected", "messages landed", "files put together", "history takes over"]


@pytest.fixture(scope="module")
def scenarios(forks: Forks, folder: Path) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in live(forks, folder, folder / "home")}


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_anywhere_loses_doubles_and_tears_nothing(
    forks: Forks, scenarios: dict[str, Scenario], form: str
) -> None:
    report = kill_everywhere(forks, scenarios[form])
    assert report.problems == []
    assert report.points == scenarios[form].calls


@pytest.mark.parametrize("form", FORMS)
def test_what_is_acknowledged_has_been_made_durable(forks: Forks, scenarios: dict[str, Scenario], form: str) -> None:
    scenario = scenarios[form]
    scenario.restore()
    assert violations(forks.run(scenario.step).calls, Path(scenario.step.home)) == []


@pytest.mark.parametrize("form", ["messages landed", "files put together", "history takes over"])
def test_a_power_cut_after_a_kill_and_a_recovery_takes_no_bar(
    forks: Forks, scenarios: dict[str, Scenario], form: str
) -> None:
    """A file that is there after a kill, though its name is not durable, is not taken for done."""
    scenario = scenarios[form]
    scenario.restore()
    calls = forks.run(scenario.step).calls
    named = [number for number, call in enumerate(calls, 1) if (call.target or "").endswith(".parquet")]
    assert named
    for number in named:
        scenario.restore()
        killed = forks.run(scenario.step, kill_before=number + 1)
        assert killed.killed_before
        again = forks.run(scenario.step)
        assert violations([*killed.calls, *again.calls], Path(scenario.step.home)) == []


@pytest.mark.parametrize("name", LIVE_MUTANTS)
def test_a_mutant_is_caught(forks: Forks, scenarios: dict[str, Scenario], name: str) -> None:
    assert first_problem(forks, scenarios[LIVE_MUTANTS[name].form], name)
