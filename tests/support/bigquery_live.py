"""`collect`, `stream` and the simulated exchange as real processes over a warehouse on BigQuery."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ingestion.bus.port import TOPOLOGY, Subscription
from tests.support.command import KLINEHOUSE
from tests.support.live import until
from warehouse.bigquery.live import LiveBigQuery

# `klinehouse stream` with the topology of a test, see `hasty`.
_STREAM = """
import sys
from ingestion.bus import local
from tests.support.bigquery_live import hasty
local.LocalBus.__init__.__defaults__ = (hasty(), *local.LocalBus.__init__.__defaults__[1:])
from klinehouse.cli import app
app(["stream", "--json"])
"""


def hasty() -> tuple[Subscription, ...]:
    """The topology of the bus, but with redeliveries at once, and ten seconds after a consumer's death: in reality it
    takes one minute, and several until a message is a dead letter."""
    at_once, soon = timedelta(0), timedelta(seconds=10)
    return tuple(replace(one, min_backoff=at_once, max_backoff=at_once, ack_deadline=soon) for one in TOPOLOGY)


@contextmanager
def exchange(folder: Path, now: str, speed: float, *faults: str) -> Iterator[tuple[str, Path]]:
    """A simulated exchange whose clock begins at `now`; its address, and the file of what closed."""
    truth = folder / "truth.jsonl"
    options = ["--port", "0", "--now", now, "--speed", str(speed), "--truth", str(truth)]
    words = [word for fault in faults for word in ("--fault", fault)]
    process = subprocess.Popen(
        [KLINEHOUSE, "simulate", "--json", *options, *words], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], truth
    finally:
        process.kill()
        process.communicate()


def computed(live: LiveBigQuery) -> None:
    """Wait until what is pending has been computed."""

    def is_over() -> bool:
        live.between_batches()
        return live._work is None and live._pending is None

    until(is_over, seconds=180, every=0.05)


class Streaming:
    """One streaming run after another; what each said is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    def start(self) -> None:
        self._runs += 1
        out, errors = self._of_run("out").open("wb"), self._of_run("log").open("wb")
        with out, errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _STREAM], stdout=out, stderr=errors, env=dict(os.environ)
            )

    def batches(self) -> list[dict[str, Any]]:
        """Of the latest run."""
        lines = self._of_run("out").read_text().splitlines()
        assert self.is_running or lines, self.said()
        return [json.loads(line) for line in lines]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        return self._of_run("log").read_text()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self, seconds: float) -> int:
        """Asked to; its exit code."""
        assert self._process is not None
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        code = self._process.poll()
        assert code is not None, self.said()
        return code

    def _of_run(self, kind: str) -> Path:
        return self._folder / f"stream-{self._runs}.{kind}"
