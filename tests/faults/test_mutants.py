"""Thirteen mistakes against durability, each of which the fault tests have to catch."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.forks import Forks
from faults.kills import first_problem
from faults.mutants import MUTANTS
from faults.scenarios import Scenario, buildings, landings, prepare_warehouse, publishings


@pytest.fixture(scope="module")
def scenarios(forks: Forks, folder: Path) -> Iterator[dict[str, Scenario]]:
    raw, warehouse, place = folder / "raw", folder / "warehouse", folder / "home"
    arguments = prepare_warehouse(place, warehouse)
    with landings(forks, raw, folder / "landed") as found:
        found += [*buildings(forks, warehouse, place, arguments), *publishings(forks, warehouse, place)]
        yield {scenario.name: scenario for scenario in found}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(forks: Forks, scenarios: dict[str, Scenario], name: str) -> None:
    assert first_problem(forks, scenarios[MUTANTS[name].form], name)
