"""Runs steps in children that are forked from here, where everything is imported already: a start costs milliseconds.

One request a line of JSON comes in, one answer a line goes out. It has one thread, as the tracer wants it.
"""

import gc
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults import mutants, paths, tracer
from faults.power import cut_power


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"run": _run, "state": _state, "unavailable": tracer.unavailable}[request.pop("action")](**request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)  # the end of the bindings complains of what `freeze` keeps


def _run(
    step: dict[str, Any], kill_before: int | None, mutant: str | None, cut: dict[str, Any] | None
) -> dict[str, Any]:
    asked = paths.Step(**step)

    def work() -> None:
        paths.run(mutants.applied(mutant, asked) if mutant else asked)

    on_kill = (lambda: cut_power(**cut)) if cut else None
    return asdict(tracer.traced(work, Path(asked.home), kill_before, on_kill))


def _state(step: dict[str, Any], settled: bool) -> dict[str, str]:
    """In a child too: nothing of a home stays open, and no database stays in a cache."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = (paths.settled if settled else paths.visible)(paths.Step(**step))
        except Exception:  # noqa: BLE001 - a state that cannot be told is a finding
            answer = {"unreadable": traceback.format_exc()}
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


main()
