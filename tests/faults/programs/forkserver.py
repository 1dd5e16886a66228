"""Runs steps in children that are forked from here, where everything is imported already: a start costs milliseconds.

One request a line of JSON comes in, one answer a line goes out. It has one thread, as the tracer wants it.
"""

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults import mutants, paths, tracer, traffic
from faults.power import cut_power


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _ACTIONS[request.pop("action")](**request)
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


def _state(step: dict[str, Any], settled: bool) -> Any:
    asked = paths.Step(**step)
    return _in_a_child(lambda: _told(paths.settled if settled else paths.visible, asked))


def _recovery(step: dict[str, Any], mutant: str | None) -> Any:
    """What is visible, how the step then ends when it runs again, and what is settled after it, in one child."""
    asked = paths.Step(**step)

    def recover() -> dict[str, Any]:
        visible, failure = _told(paths.visible, asked), None
        try:
            paths.run(mutants.applied(mutant, asked) if mutant else asked)
        except BaseException:  # noqa: BLE001 - however it ends, it is a finding
            failure = traceback.format_exc()
        return {"visible": visible, "failure": failure, "settled": _told(paths.settled, asked)}

    return _in_a_child(recover)


def _told(tell: Callable[[paths.Step], paths.State], step: paths.Step) -> paths.State:
    try:
        return tell(step)
    except Exception:  # noqa: BLE001 - a state that cannot be told is a finding
        return {"unreadable": traceback.format_exc()}


def _in_a_child(work: Callable[[], Any]) -> Any:
    """So that nothing of a home stays open here, and no database stays in a cache."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = work()
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


def _traffic(source: dict[str, Any], sink: dict[str, Any], bars: int, kills: int, seed: int) -> dict[str, Any]:
    """Run both side by side to their end; until then kill the sink so many times at random instants, and after every
    fourth time the source, and start them again. Returns how many kills fell on a living process, and failures."""
    chance, home = random.Random(seed), source["home"]
    killed, failures = {"source": 0, "sink": 0}, []

    def end(name: str, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        killed[name] += status == -signal.SIGKILL

    traffic.numbered(bars)  # once, for all children
    traffic.allow(home, 0)
    running = {"source": _started(source), "sink": _started(sink)}
    steps = {"source": source, "sink": sink}
    for number in range(1, kills + 1):
        traffic.allow(home, bars * number // (kills + 1))
        if number % 2:  # where a start takes long, all kills would fall on that
            traffic.await_lease(home)
        time.sleep(chance.uniform(0, 0.03 if number % 2 else 0.15))
        for name in ("sink", "source") if number % 4 == 0 else ("sink",):
            end(name, running[name])
            running[name] = _started(steps[name])
    traffic.allow(home, bars)
    for name in ("source", "sink"):
        status = os.waitstatus_to_exitcode(os.waitpid(running[name], 0)[1])
        failures += [f"the {name} ended with {status}"] if status else []
        traffic.end(home)
    return {"killed": killed, "failures": failures}


def _started(step: dict[str, Any]) -> int:
    """Run a step in a child; returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            paths.run(paths.Step(**step))
            status = 0
        except BaseException:  # noqa: BLE001 - it is seen by its status, and why on the screen
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


_ACTIONS: dict[str, Callable[..., Any]] = {
    "run": _run,
    "state": _state,
    "recovery": _recovery,
    "traffic": _traffic,
    "unavailable": tracer.unavailable,
}

main()
