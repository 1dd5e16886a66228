"""`klinehouse stream` as a real process: batches become visible, it ends when asked to, and a second one takes over."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.command import KLINEHOUSE
from support.homes import home, random_walk
from support.streamed import messages

from ingestion.bus.open import open_bus
from ingestion.bus.port import KLINES, MICROBATCH
from ingestion.klines import Series
from ingestion.messages import encode
from ingestion.settings import Settings
from warehouse.serving import run_query

BARS = random_walk(Series("BTCUSDT", "1h"), datetime(2025, 3, 1, tzinfo=UTC), 6)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home", symbols="BTCUSDT", interval="1h")


Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts streaming runs, which do not outlive the test."""
    named = {"KLINEHOUSE_HOME": settings.home, "KLINEHOUSE_SYMBOLS": "BTCUSDT", "KLINEHOUSE_INTERVAL": "1h"}
    started: list[subprocess.Popen[str]] = []

    def one() -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [KLINEHOUSE, "stream", "--json"],
                env=os.environ | {name: str(value) for name, value in named.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def come(settings: Settings, first: int, last: int) -> None:
    with open_bus(settings) as bus:
        bus.publish(KLINES, [encode(one) for one in messages(BARS.slice(first, last - first))])


def next_batch(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    found: dict[str, Any] = json.loads(line)
    return found


def test_it_takes_batches_gives_way_to_a_successor_and_ends_when_asked_to(settings: Settings, start: Start) -> None:
    come(settings, 0, 2)
    first = start()
    batch = next_batch(first)
    assert (batch["rows"], batch["backlog"], batch["watermark"]) == (2, 0, "2025-03-01T01:59:59.999000Z")
    successor = start()
    _, said = first.communicate(timeout=60)
    assert (first.returncode, "a successor took over" in said) == (0, True)
    come(settings, 2, 6)
    assert next_batch(successor)["rows"] == 4
    successor.terminate()
    _, said = successor.communicate(timeout=60)
    assert (successor.returncode, "it was asked to stop" in said) == (0, True)
    bars = run_query(settings, "select count(*), max(open_time) from market_data_unified where \"interval\" = '1h'")
    assert bars.rows == [(6, BARS["open_time"][0].as_py() + timedelta(hours=5))]
    with open_bus(settings) as bus:
        assert bus.backlog(MICROBATCH).messages == 0
