"""The raw zone on a local folder: what DuckDB sees of it, full disks and kills. Its contract is in `tests/contract`."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_zones import BTC, JULY, PROVENANCE, all_files, bars, in_threads

from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA
from ingestion.raw_zone import RawZone
from ingestion.store import write_durably


@pytest.fixture
def local(tmp_path: Path) -> RawZone:
    return RawZone(str(tmp_path / "raw"))


values = st.decimals(0, Decimal("99999999999999999999.99999999"), places=8, allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(st.lists(values, min_size=1, max_size=3))
def test_every_decimal_survives_the_file_to_the_last_digit(prices: list[Decimal]) -> None:
    zone = RawZone(f"memory://{uuid.uuid4().hex}")
    tables = [bars(1, str(price)) for price in prices]
    zone.write_history(BTC, JULY, pa.concat_tables(tables), PROVENANCE)
    assert zone.read_history(BTC, JULY)["high"].to_pylist() == prices


# --- a local folder: DuckDB ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0.00000001", "99999999999999999999.99999999", "12345678901234567890.12345678", "0"])
def test_duckdb_reads_the_exact_decimals(local: RawZone, value: str) -> None:
    local.write_history(BTC, JULY, bars(1, value), PROVENANCE)
    columns = ", ".join(DECIMAL_COLUMNS)
    [row] = duckdb.sql(f"select {columns} from read_parquet('{local.history_files()[0].path}')").fetchall()
    assert row == (Decimal(value),) * len(DECIMAL_COLUMNS)


def test_duckdb_sees_the_types_of_the_raw_table(local: RawZone) -> None:
    local.write_history(BTC, JULY, bars(), PROVENANCE)
    found = duckdb.sql(f"describe from read_parquet('{local.history_files()[0].path}')").fetchall()
    types = dict.fromkeys(KLINE_SCHEMA.names, "VARCHAR")
    types |= dict.fromkeys(DECIMAL_COLUMNS, "DECIMAL(28,8)") | {"trades": "BIGINT"}
    types |= dict.fromkeys(("open_time", "close_time", "ingested_at"), "TIMESTAMP WITH TIME ZONE")
    assert {name: kind for name, kind, *_ in found} == types


def test_duckdb_reads_the_exact_times(local: RawZone) -> None:
    local.write_history(BTC, JULY, bars(1), PROVENANCE)
    path = local.history_files()[0].path
    query = f"select epoch_us(open_time), epoch_us(close_time) from read_parquet('{path}')"
    assert duckdb.sql(query).fetchall() == [(1719792000000000, 1719795599999999)]


# --- a local folder: whole files or none -----------------------------------------------------------------------


def test_a_file_half_written_under_its_hidden_name_is_listed_nowhere(local: RawZone) -> None:
    local.write_history(BTC, JULY, bars(), PROVENANCE)
    path = Path(local.history_files()[0].path)
    path.with_name(f".{path.name}.{uuid.uuid4().hex}").write_bytes(b"half")
    path.with_name(f".2024-08.parquet.{uuid.uuid4().hex}").write_bytes(b"half")
    assert [file.path for file in local.history_files()] == [str(path)]


def _disk_full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["fsync", "rename"])
def full_disk(request: pytest.FixtureRequest) -> Callable[[pytest.MonkeyPatch], None]:
    owner = {"fsync": os, "rename": Path}[request.param]
    return lambda patch: patch.setattr(owner, request.param, _disk_full)


def test_a_full_disk_is_reported_and_leaves_the_old_month(
    local: RawZone, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[pytest.MonkeyPatch], None]
) -> None:
    local.write_history(BTC, JULY, bars(5, "1"), PROVENANCE)
    full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        local.write_history(BTC, JULY, bars(2, "2"), PROVENANCE)
    assert local.read_history(BTC, JULY).equals(bars(5, "1"))


def test_a_full_disk_leaves_no_half_written_file(
    local: RawZone, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[pytest.MonkeyPatch], None]
) -> None:
    full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        local.write_history(BTC, JULY, bars(), PROVENANCE)
    assert all_files(local.root) == []


def test_a_zone_that_cannot_be_written_fails_the_probe(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="raw"):
        RawZone(str(tmp_path / "raw")).probe_writable()


def test_a_writer_that_keeps_what_is_there_keeps_it(tmp_path: Path) -> None:
    write_durably(tmp_path / "once", b"first", keep_existing=True)
    write_durably(tmp_path / "once", b"second", keep_existing=True)
    assert (tmp_path / "once").read_bytes() == b"first"


def test_of_eight_writers_that_keep_what_is_there_exactly_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "once"
    seen: list[bytes] = []

    def write(number: int) -> None:
        write_durably(path, bytes([number]) * 10_000, keep_existing=True)
        seen.append(path.read_bytes())

    in_threads(8, write)
    assert len(seen) == 8
    assert set(seen) in [{bytes([number]) * 10_000} for number in range(8)]


def test_writers_that_lose_leave_nothing_behind(tmp_path: Path) -> None:
    in_threads(8, lambda number: write_durably(tmp_path / "once", bytes([number]), keep_existing=True))
    assert [path.name for path in tmp_path.iterdir()] == ["once"]


# --- a local folder: killed while writing ----------------------------------------------------------------------

# Imports once, then forks one writer for each line it is sent: the writer says its pid after its first file and goes on
# rewriting the month, the old and the new in turn, until it is killed.
_WRITERS = """
import os, sys
from itertools import cycle
import pyarrow as pa
import pyarrow.parquet as pq
from ingestion.klines import Month, Series
from ingestion.provenance import Provenance
from ingestion.raw_zone import RawZone

root, *contents = sys.argv[1:]
for _ in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    zone, month = RawZone(root), Month(2024, 7)
    tables = [pq.ParquetFile(content).read(use_threads=False) for content in contents]
    versions = [(rows, Provenance((), rows.num_rows, (), month.end)) for rows in tables]
    for i, (rows, provenance) in enumerate(cycle(versions)):
        zone.write_history(Series("BTCUSDT", "1h"), month, rows, provenance)
        if i == 0:
            print(os.getpid(), flush=True)
"""


@pytest.fixture
def kill_a_writer(tmp_path: Path) -> Iterator[Callable[[float], None]]:
    """Start a process that rewrites a month over and over and kill it so many seconds after its first file."""
    for count, value in ((500, "1"), (700, "2")):
        pq.write_table(bars(count, value), tmp_path / f"{count}.parquet")
    command = [sys.executable, "-c", _WRITERS, "raw", "500.parquet", "700.parquet"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill(delay: float) -> None:
        process.stdin.write("next\n")
        process.stdin.flush()
        writer = int(process.stdout.readline())
        threading.Event().wait(delay)
        os.kill(writer, signal.SIGKILL)
        assert process.stdout.readline() == "dead\n"

    with process:
        yield kill
        process.stdin.close()


def test_a_writer_killed_at_any_moment_leaves_a_whole_month_old_or_new(
    local: RawZone, kill_a_writer: Callable[[float], None]
) -> None:
    versions = {500: bars(500, "1"), 700: bars(700, "2")}
    moments = random.Random(1)
    for _ in range(20):
        kill_a_writer(moments.uniform(0, 0.02))
        [file] = local.history_files()
        rows = local.read_history(BTC, JULY)
        assert rows.equals(versions[rows.num_rows])
        assert local.describe(file).provenance.rows == rows.num_rows
    beside = {path.name for path in Path(file.path).parent.iterdir()} - {f"{JULY}.parquet"}
    assert all(name.startswith(f".{JULY}.parquet.") for name in beside)
