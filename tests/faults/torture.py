"""Power cuts before every call that changes files, on real file systems in loop images: `make torture`, as root.

At each point the file system is shut down while the process stands still before the call, the process is killed, the
file system is mounted anew, and what is there must be whole; then the step runs again and must end as if nothing had
happened. A cut takes everything that was not made durable (`NOTHING_MORE`), or lets names and sizes reach the disk
without the content (`JOURNAL`). After all points come pairs: a second cut while the first is made up for. A run that
ended before the cut was acknowledged: it must be there whole.

Before all that, mutants without fsync must lose something here: if they do not, nothing is proven and it ends at once.
"""

import argparse
import ctypes
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from faults.forks import Forks, forks
from faults.kills import broken, missing, unfinished
from faults.mutants import LANDING_MUTANTS, QUEUE_MUTANTS
from faults.power import JOURNAL, NOTHING_MORE, cut_power
from faults.scenarios import Scenario, buildings, landings, live, prepare_warehouse, publishings, queues

FILE_SYSTEMS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
FLAGS = {"nothing more": NOTHING_MORE, "journal": JOURNAL}
MUST_LOSE = ("no fsync of a file", "written under its final name", "the log not synced at each commit")
_IMAGE_MB = 400  # XFS makes none below 300
_preparing = threading.Lock()  # dbt is started in this process


@dataclass
class Report:
    """What one file system went through."""

    states: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Disk:
    """A file system in a loop image."""

    kind: str
    image: Path
    mount: Path

    @classmethod
    def made(cls, kind: str, folder: Path) -> "Disk":
        disk = cls(kind, folder / f"{kind}.img", folder / kind)
        disk.mount.mkdir()
        with disk.image.open("wb") as image:
            image.truncate(_IMAGE_MB << 20)
        _command(*FILE_SYSTEMS[kind], disk.image)
        _command("mount", "-o", "loop", disk.image, disk.mount)
        return disk

    def after_cut(self) -> None:
        """Mount it anew, as a machine does that starts again."""
        self.unmount()
        _command("mount", "-o", "loop", self.image, self.mount)

    def unmount(self) -> None:
        _command("umount", self.mount)

    def sync(self) -> None:
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(descriptor)


def _command(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


@dataclass(frozen=True)
class Result:
    """Of one state: whether the first run ended before it could be cut, and what was wrong."""

    ended: bool
    problems: list[str]


class Torture:
    """One file system's cuts."""

    def __init__(self, forks: Forks, disk: Disk) -> None:
        self._forks, self._disk = forks, disk
        self._caught: Counter[str] = Counter()
        self.report = Report()

    def cut(self, scenario: Scenario, flag: str, points: tuple[int, ...], mutant: str | None = None) -> Result:
        """Cut before the first of these calls of the run, before the second of the run that makes up for it, and so on;
        a run that ends earlier has its cut then, and all that it did must be there."""
        scenario.restore()
        self._disk.sync()
        power = {"mount": str(self._disk.mount), "flag": FLAGS[flag]}
        problems: list[str] = []
        for i, point in enumerate(points):
            run = self._forks.run(scenario.step, kill_before=point, mutant=mutant, cut=power)
            if run.failure:
                return Result(False, [*problems, run.failure])
            if run.killed_before is None:
                cut_power(str(self._disk.mount), FLAGS[flag])
                self._disk.after_cut()
                # Superseded files may be there again, until they are removed again: that is not visible to anyone.
                problems += missing(scenario, self._forks.visible(scenario.step))
                return Result(i == 0, problems + unfinished(self._forks, scenario, mutant))
            self._disk.after_cut()
            problems += broken(scenario, self._forks.visible(scenario.step))
        return Result(False, problems + unfinished(self._forks, scenario, mutant))

    def try_mutants(self, scenarios: dict[str, Scenario]) -> None:
        """Raises when a mutant that must lose something does not: then the cuts do not cut."""
        for name in MUST_LOSE:
            scenario = scenarios[(LANDING_MUTANTS | QUEUE_MUTANTS)[name].form]
            for flag in FLAGS:
                # From the end, where the most has been written.
                for point in range(scenario.calls + 1, 0, -1):
                    result = self.cut(scenario, flag, (point,), name)
                    if result.problems:
                        break
                found = result.problems[0] if result.problems else "nothing is lost"
                say(f"{self._disk.kind}, {flag}: mutant '{name}', cut {point}: {found}")
                self._caught.update([name] if result.problems else [])
            if not self._caught[name]:
                raise RuntimeError(f"The mutant '{name}' lost nothing on {self._disk.kind}: the power was not cut.")

    def everywhere(self, scenarios: dict[str, Scenario], states: int, until: float, seed: int) -> None:
        """Every point once, then pairs of points, in an order that a seed chooses; until there were so many states, or
        until then."""
        choose = random.Random(seed)
        # One point before each call, and one after the end.
        lengths = {name: scenario.calls + 1 for name, scenario in scenarios.items()}
        once = [(name, flag, (point,)) for name in scenarios for flag in FLAGS for point in range(1, lengths[name] + 1)]
        choose.shuffle(once)

        def pairs() -> Iterator[tuple[str, str, tuple[int, ...]]]:
            while True:
                name = choose.choice(sorted(scenarios))
                first, second = (choose.randint(1, lengths[name]) for _ in range(2))
                yield name, choose.choice(sorted(FLAGS)), (first, second)

        say(f"{self._disk.kind}: {len(once)} single cuts, then pairs")
        for name, flag, points in chain(once, pairs()):
            if self.report.states.total() >= states or time.monotonic() > until:
                return
            self._count(scenarios[name], flag, points)

    def _count(self, scenario: Scenario, flag: str, points: tuple[int, ...]) -> None:
        result = self.cut(scenario, flag, points)
        kind = "at the end" if result.ended else "twice" if len(points) > 1 else "once"
        self.report.states[f"{scenario.name}, cut {kind}"] += 1
        where = f"{self._disk.kind}, {scenario.name}, {flag}, before calls {points}"
        self.report.problems += [f"{where}: {problem}" for problem in result.problems]
        for problem in result.problems:
            say(f"{where}: {problem}")
        if self.report.states.total() % 100 == 0:
            say(f"{self._disk.kind}: {self.report.states.total()} states, {len(self.report.problems)} problems")


@contextmanager
def prepared(forks: Forks, disk: Disk, folder: Path) -> Iterator[dict[str, Scenario]]:
    """The scenarios with their homes on that file system; what is kept of them lies outside."""
    landing, warehouse = folder / f"{disk.kind}-landing", folder / f"{disk.kind}-warehouse"
    landing.mkdir()
    warehouse.mkdir()
    place = disk.mount / "warehouse"
    with _preparing:
        arguments = prepare_warehouse(place, warehouse)
    with landings(forks, landing, disk.mount / "landing") as found:
        found += [*buildings(forks, warehouse, place, arguments), *publishings(forks, warehouse, place)]
        for name, made in (("queue", queues), ("live", live)):
            kept = folder / f"{disk.kind}-{name}"
            kept.mkdir()
            found += made(forks, kept, disk.mount / name)
        yield {scenario.name: scenario for scenario in found}


def torture(kind: str, folder: Path, states: int, minutes: float, seed: int) -> Report:
    disk = Disk.made(kind, folder)
    try:
        with forks() as server, prepared(server, disk, folder) as scenarios:
            one = Torture(server, disk)
            one.try_mutants(scenarios)
            one.everywhere(scenarios, states, time.monotonic() + 60 * minutes, seed)
            return one.report
    finally:
        disk.unmount()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Power cuts at every point where data become visible.")
    parser.add_argument("--states", type=int, default=8000, help="states in all, over both file systems")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="when to stop before that")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs of points")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        say("Power cuts need root: loop images are mounted.")
        return 2
    with tempfile.TemporaryDirectory(prefix="klinehouse-torture-") as folder:
        each = arguments.states // len(FILE_SYSTEMS)
        with ThreadPoolExecutor(len(FILE_SYSTEMS)) as pool:
            reports = list(
                pool.map(
                    lambda kind: torture(kind, Path(folder), each, arguments.minutes, arguments.seed), FILE_SYSTEMS
                )
            )
    for kind, report in zip(FILE_SYSTEMS, reports, strict=True):
        say(f"{kind}: {report.states.total()} states, {len(report.problems)} problems")
        for form, states in sorted(report.states.items()):
            say(f"  {form}: {states}")
    return int(any(report.problems or not report.states for report in reports))


if __name__ == "__main__":
    sys.exit(main())
