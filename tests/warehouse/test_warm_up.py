"""Warming up: what a process does once is done before its first batch, and nowhere but in a home of its own."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.homes import compute_tables, home, put, random_walk
from support.streamed import messages

from ingestion.bus.open import open_bus
from ingestion.bus.port import KLINES
from ingestion.klines import Series
from ingestion.messages import encode
from warehouse import warm_up
from warehouse.engine import streaming_turn
from warehouse.serving import publish, run_query

SERIES = Series("BTCUSDT", "1h")
PROGRAM = Path(__file__).parent / "programs" / "first_batch.py"


def test_the_first_batch_imports_nothing(tmp_path: Path) -> None:
    settings = home(tmp_path / "home", symbols="BTCUSDT", interval="1h")
    rows = random_walk(SERIES, datetime(2024, 6, 1, tzinfo=UTC), 49)
    put(settings, SERIES, rows.slice(0, 48))
    compute_tables(settings)
    publish(settings)
    with open_bus(settings) as bus:
        bus.publish(KLINES, [encode(one) for one in messages(rows.slice(48))])
    environment = {
        "KLINEHOUSE_HOME": str(settings.home),
        "KLINEHOUSE_SYMBOLS": "BTCUSDT",
        "KLINEHOUSE_INTERVAL": "1h",
    }
    done = subprocess.run(
        [sys.executable, PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
    # The bar of the rehearsal is not among them.
    assert run_query(
        settings, "select count(*), min(open_time) from market_data_unified where \"interval\" = '1h'"
    ).rows == [(49, datetime(2024, 6, 1, tzinfo=UTC))]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is a whole process's")
def test_a_successor_leaves_the_run_before_it_most_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    settings, turn = home(tmp_path), streaming_turn(home(tmp_path))
    seen: list[int] = []
    monkeypatch.setattr(warm_up, "_rehearse", lambda settings: seen.append(priority()))
    before = priority()
    assert turn.take(0)
    warm_up.warm_up(settings)
    turn.give_back()
    warm_up.warm_up(settings)
    assert seen == [before + 10, before]
    assert priority() == before
