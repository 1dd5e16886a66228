"""A home with two landed, built and published months, and its definitions."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from support.backfilled import Backfilled
from support.homes import home

from ingestion.history.month import MonthResult
from ingestion.klines import Month
from ingestion.simulator.server import build_app, running
from orchestration.backfill import backfill
from orchestration.instance import open_instance


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfilled]:
    with running(build_app(seed=1)) as address:
        path: Path = tmp_path_factory.mktemp("backfilled")
        settings = home(path, archive_url=address, symbols="BTCUSDT,SOLUSDT", start="2020-08-01")
        runs: list[str] = []
        months: list[MonthResult] = []
        with (path / "log").open("w") as log:
            backfill(settings, [Month(2020, 8), Month(2020, 9)], on_run=runs.append, on_month=months.append, log=log)
        yield Backfilled(settings, runs, months)


@pytest.fixture
def instance(backfilled: Backfilled) -> Iterator[dg.DagsterInstance]:
    with open_instance(backfilled.settings) as found:
        yield found
