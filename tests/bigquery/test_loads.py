"""Loads that are repeated, killed, or race one another leave the rows of the newest file; readers see no hole."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from support.bigquery_home import Cloud, of_process
from support.homes import put, random_walk

from ingestion.klines import KLINE_SCHEMA, Month, Series
from ingestion.raw_zone import HistoryFile, RawZone
from ingestion.settings import Settings
from warehouse.bigquery import raw_source
from warehouse.bigquery.client import BigQuery
from warehouse.bigquery.load import load_files

pytestmark = pytest.mark.bigquery

BTC, ETH = Series("BTCUSDT", "4h"), Series("ETHUSDT", "4h")
BARS = 6 * 28

# Loads a month; the process dies before or after the load's transaction.
_DYING = """
import os, signal, sys
from ingestion.raw_zone import RawZone
from ingestion.settings import load_settings
from warehouse.bigquery import raw_source
from warehouse.bigquery.client import BigQuery
from ingestion.klines import Month
transaction = raw_source.in_one_transaction
def dying(*given):
    if sys.argv[1] == "after":
        transaction(*given)
    os.kill(os.getpid(), signal.SIGKILL)
raw_source.in_one_transaction = dying
settings = load_settings()
raw_source.load_history(BigQuery(settings), RawZone(settings.raw_root), "4h", [Month(2025, int(sys.argv[2]))])
"""


@pytest.fixture(scope="module")
def settings(running_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One home for all tests, because making a warehouse takes seconds: each test has a month of its own."""
    return running_cloud.home(tmp_path_factory.mktemp("home"), symbols="BTCUSDT,ETHUSDT", interval="4h")


@pytest.fixture(scope="module")
def months() -> Iterator[int]:
    return iter(range(1, 13))


class Loads:
    """A month of the warehouse, and what is loaded of it."""

    def __init__(self, settings: Settings, month: Month) -> None:
        self.settings, self.month = settings, month
        self.warehouse, self.zone = BigQuery(settings), RawZone(settings.raw_root)
        raw_source.make_tables(self.warehouse)

    def land(self, version: int, *series: Series) -> None:
        """A file in which every bar has as many trades as its version."""
        for one in series or (BTC,):
            rows = random_walk(one, self.month.start, BARS, seed=version)
            trades = pa.array([version] * BARS, pa.int64())
            at = rows.schema.get_field_index("trades")
            put(self.settings, one, rows.set_column(at, rows.schema.field(at), trades))

    def load(self, zone: RawZone | None = None) -> list[str]:
        """The versions that are loaded."""
        files = raw_source.load_history(self.warehouse, zone or self.zone, "4h", [self.month])
        return [file.version for file in files]

    def jobs(self) -> int:
        """How many load jobs there have been, of any month."""
        return sum(job.job_type == "load" for job in self.warehouse.client.list_jobs())

    def ask(self, columns: str, table: str, column: str = "open_time", more: str = "") -> list[tuple[Any, ...]]:
        within = f"{column} >= '{self.month.start}' and {column} < '{self.month.end}'"
        return self.warehouse.run(f"select {columns} from crypto_raw.{table} where {within} {more}", purpose="test")

    @property
    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        """By symbol: rows, bars, the lowest and the highest version of them."""
        columns = "symbol, count(*), count(distinct open_time), min(trades), max(trades)"
        return {symbol: tuple(rest) for symbol, *rest in self.ask(columns, "klines", more="group by symbol")}

    @property
    def noted(self) -> tuple[int, int]:
        """Of how many files it is noted that they are loaded, and of how many answers what they cover."""
        tables = ("klines_loaded", "klines_coverage")
        loaded, covered = (self.ask("count(*)", table, "month_start")[0][0] for table in tables)
        return loaded, covered


@pytest.fixture
def loads(
    running_cloud: Cloud, settings: Settings, months: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loads]:
    for name, value in running_cloud.environment.items():
        monkeypatch.setenv(name, value)
    found = Loads(settings, Month(2025, next(months)))
    yield found
    found.warehouse.close()


def whole(version: int) -> tuple[int, int, int, int]:
    return (BARS, BARS, version, version)


def test_what_is_loaded_is_not_loaded_again(loads: Loads) -> None:
    def prepare() -> object:
        return raw_source.prepare(loads.warehouse, loads.zone, "4h", [loads.month]), loads.rows, loads.jobs()

    loads.land(1)
    first = prepare()
    assert prepare() == first
    assert loads.rows == {"BTCUSDT": whole(1)}
    # A load that is delivered again is the job that there was.
    jobs = loads.jobs()
    files = loads.zone.history_files(interval="4h", months=[loads.month])
    load_files(loads.warehouse, [(file.path, file.version) for file in files], KLINE_SCHEMA)
    assert loads.jobs() == jobs


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_load_that_was_killed_is_taken_up(loads: Loads, when: str) -> None:
    loads.land(1)
    loads.load()
    loads.land(2)
    died = subprocess.run(
        [sys.executable, "-c", _DYING, when, str(loads.month.number)],
        env={**os.environ, **of_process(loads.settings)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    jobs = loads.jobs()
    assert loads.rows == {"BTCUSDT": whole({"before": 1, "after": 2}[when])}
    loads.load()
    assert (loads.jobs(), loads.rows, loads.noted) == (jobs, {"BTCUSDT": whole(2)}, (1, 1))


class Interrupted(RawZone):
    """A raw zone in which something happens right after it was listed for the first time."""

    def __init__(self, root: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def history_files(self, *args: Any, **options: Any) -> list[HistoryFile]:
        found = super().history_files(*args, **options)
        if self._meanwhile:
            self._meanwhile.pop()()
        return found


@pytest.mark.parametrize("before", [0, 1])
def test_who_listed_the_older_file_does_not_win(loads: Loads, before: int) -> None:
    if before:
        loads.land(before)
        loads.load()
    loads.land(2)

    def meanwhile() -> None:
        loads.land(3)
        loads.load()

    versions = loads.load(Interrupted(loads.settings.raw_root, meanwhile))
    assert (loads.rows, loads.noted) == ({"BTCUSDT": whole(3)}, (1, 1))
    assert versions == loads.load()


def test_first_loads_at_the_same_time_leave_each_bar_once(loads: Loads) -> None:
    loads.land(1, BTC, ETH)
    together = threading.Barrier(2)

    def race(_: int) -> list[str]:
        own = Loads(loads.settings, loads.month)
        try:
            return own.load(Interrupted(loads.settings.raw_root, lambda: together.wait(60)))
        finally:
            own.warehouse.close()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(race, range(2))
    assert one == other
    assert (loads.rows, loads.noted) == ({"BTCUSDT": whole(1), "ETHUSDT": whole(1)}, (2, 2))


def test_a_file_that_has_gone_takes_its_rows_along(loads: Loads) -> None:
    loads.land(1, BTC, ETH)
    loads.load()
    loads.zone._remove(loads.zone._history_path(ETH, loads.month))
    assert len(loads.load()) == 1
    assert (loads.rows, loads.noted) == ({"BTCUSDT": whole(1)}, (1, 1))


def test_a_reader_sees_one_version_whole_while_a_month_is_loaded_again(loads: Loads) -> None:
    loads.land(1)
    loads.load()
    over = threading.Event()

    def poll() -> list[tuple[Any, ...]]:
        own = Loads(loads.settings, loads.month)
        seen = []
        while not over.wait(0.1):
            content = "bit_xor(farm_fingerprint(concat(cast(open_time as string), ' ', cast(close as string))))"
            seen += own.ask(f"count(*), min(trades), max(trades), {content}", "klines")
        own.warehouse.close()
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(poll)
        try:
            for version in range(2, 12):
                loads.land(version)
                loads.load()
        finally:
            over.set()
        seen = reader.result()
    versions = [version for _, version, _, _ in seen]
    assert {(count, lowest == highest) for count, lowest, highest, _ in seen} == {(BARS, True)}
    assert versions == sorted(versions)
    assert len({content for *_, content in seen}) == len(set(versions)) > 5
