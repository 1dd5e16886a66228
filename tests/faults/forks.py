"""The tests' side of `programs/forkserver.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from faults.paths import State, Step
from faults.tracer import Call, Run

_HERE = Path(__file__).parent


class Forks:
    """Runs steps and tells states, each in a fresh process."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(
        self,
        step: Step,
        kill_before: int | None = None,
        mutant: str | None = None,
        cut: dict[str, Any] | None = None,
    ) -> Run:
        """Run a step, to its end or to the kill before its n-th call that changes files; with `cut` ({mount, flag}) the
        power of its file system goes before the kill."""
        answer = self._ask(action="run", step=asdict(step), kill_before=kill_before, mutant=mutant, cut=cut)
        before = answer["killed_before"]
        calls = tuple(Call(**call) for call in answer["calls"])
        return Run(calls, Call(**before) if before else None, answer["failure"])

    def visible(self, step: Step) -> State:
        return cast("State", self._ask(action="state", step=asdict(step), settled=False))

    def settled(self, step: Step) -> State:
        return cast("State", self._ask(action="state", step=asdict(step), settled=True))

    def recovery(self, step: Step, mutant: str | None = None) -> tuple[State, str | None, State]:
        """What is visible; how the step fails when it runs again, undisturbed (None: it does not); what is settled."""
        answer = self._ask(action="recovery", step=asdict(step), mutant=mutant)
        return answer["visible"], answer["failure"], answer["settled"]

    def traffic(self, source: Step, sink: Step, bars: int, kills: int, seed: int) -> tuple[dict[str, int], list[str]]:
        """Run source and sink side by side and kill them at random instants, see `programs/forkserver.py`; how many
        kills of which fell, and how they failed at their end."""
        answer = self._ask(
            action="traffic", source=asdict(source), sink=asdict(sink), bars=bars, kills=kills, seed=seed
        )
        return answer["killed"], answer["failures"]

    def unavailable(self) -> str | None:
        """Why nothing can be traced here; None when it can."""
        return cast("str | None", self._ask(action="unavailable"))

    def _ask(self, **request: object) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"The fork server ended with {self._server.wait()} at {request}.")
        return json.loads(line)


@contextmanager
def forks() -> Iterator[Forks]:
    """A running fork server."""
    folders = [str(_HERE.parent), str(_HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    # Threads of the numeric library would be a second thread before the fork.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "OPENBLAS_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, str(_HERE / "programs" / "forkserver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Forks(server)
    finally:
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
