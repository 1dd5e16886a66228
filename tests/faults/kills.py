"""A kill before each call that changes files, and what may be there afterwards."""

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from faults.durability import violations
from faults.forks import Forks
from faults.paths import State
from faults.scenarios import Scenario
from faults.tracer import Call

# Every point of every form, and all the reads: `make faults`, which takes a quarter of an hour.
ALL_POINTS = "KLINEHOUSE_TEST_ALL_POINTS" in os.environ


@dataclass
class Report:
    """The kills that fell, by the call that they fell before, and what was found wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def points(self) -> int:
        return self.kills.total()


def kill_everywhere(forks: Forks, scenario: Scenario, every: int = 1) -> Report:
    """Kill the scenario's step before its first call that changes files, its second, and so on until one run ends by
    itself; each time look at what is visible, run the step again, and compare with the undisturbed run.

    With `every` only before each so many-th of them, unless KLINEHOUSE_TEST_ALL_POINTS is set.
    """
    report = Report()
    for point in count(1, 1 if ALL_POINTS else every):
        call, problems = kill_at(forks, scenario, point)
        report.problems += problems
        if call is None:
            break
        report.kills[call.name] += 1
    return report


def kill_at(forks: Forks, scenario: Scenario, point: int, mutant: str | None = None) -> tuple[Call | None, list[str]]:
    """One of these kills: the call that it fell before (None: the run ended first) and what was wrong then."""
    scenario.restore()
    run = forks.run(scenario.step, kill_before=point, mutant=mutant)
    call = run.killed_before
    if run.failure:
        found = [run.failure]
    elif call:
        seen, failure, settled = forks.recovery(scenario.step, mutant)
        again = [failure] if failure else differing(scenario, settled)
        found = [*broken(scenario, seen), *(f"run again: {problem}" for problem in again)]
    else:
        found = differing(scenario, forks.settled(scenario.step))
    where = f"killed before call {point} ({call.name} {call.path})" if call else "not killed"
    return call, [f"{scenario.name}, {where}: {problem}" for problem in found]


def first_problem(forks: Forks, scenario: Scenario, mutant: str) -> str | None:
    """What shows that a mutant is one: an undisturbed run that fails, the order of its calls, its end, or a kill, those
    right after something became durable first; None when nothing does."""
    scenario.restore()
    run = forks.run(scenario.step, mutant=mutant)
    found = [run.failure] if run.failure else []
    found += violations(run.calls, Path(scenario.step.home)) + differing(scenario, forks.settled(scenario.step))
    for point in sorted(range(len(run.calls), 0, -1), key=lambda point: "sync" not in run.calls[point - 2].name):
        if found:
            break
        found = kill_at(forks, scenario, point, mutant)[1]
    return found[0] if found else None


def broken(scenario: Scenario, seen: State) -> list[str]:
    """What is visible and is neither as it was before nor as it is after."""
    before, after = scenario.before, scenario.after
    wrong = [
        f"{name} is neither the old nor the new: {digest}"
        for name, digest in seen.items()
        if digest not in (before.get(name), after.get(name))
    ]
    lost = (before.keys() & after.keys()) - seen.keys() - scenario.only_settled
    return wrong + [f"{name} is gone" for name in sorted(lost)]


def missing(scenario: Scenario, seen: State) -> list[str]:
    """What is not visible as it is after, though the run had ended."""
    wanted = {name: digest for name, digest in scenario.after.items() if name not in scenario.only_settled}
    names = sorted(seen.keys() | wanted.keys())
    return [f"{name} had been acknowledged" for name in names if seen.get(name) != wanted.get(name)]


def unfinished(forks: Forks, scenario: Scenario, mutant: str | None) -> list[str]:
    """Run the step again, undisturbed; what is then not as in a home that was never disturbed."""
    failure = forks.run(scenario.step, mutant=mutant).failure
    return [failure] if failure else differing(scenario, forks.settled(scenario.step))


def differing(scenario: Scenario, seen: State) -> list[str]:
    wanted = scenario.after
    return [
        f"{name} is {seen.get(name)}, undisturbed {wanted.get(name)}"
        for name in sorted(seen.keys() | wanted.keys())
        if seen.get(name) != wanted.get(name)
    ]
