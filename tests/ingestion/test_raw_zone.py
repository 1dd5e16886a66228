"""The contract runs on a local folder and on fsspec's memory file system, which stands for an object store."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.errors import ConfigurationError
from ingestion.grid import Window
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA, Month, Series
from ingestion.provenance import Provenance, SourceFile
from ingestion.raw_zone import DIFFERENCE_SCHEMA, Environment, RawZone
from ingestion.store import write_durably
from ingestion.symbols import SYMBOL_SCHEMA

BTC, ETH = Series("BTCUSDT", "1h"), Series("ETHUSDT", "1h")
JULY, AUGUST = Month(2024, 7), Month(2024, 8)
FETCHED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
URL = "https://data.binance.vision/data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-07.zip"
NAME = URL.rsplit("/", 1)[-1]
FILE = SourceFile("archive_monthly", URL, "ab" * 32, 3, 123, FETCHED, JULY.start, JULY.end, duplicates=1)
HOLE = Window(JULY.start + timedelta(hours=3), JULY.end)
PROVENANCE = Provenance((FILE,), 3, ("archive_monthly",), JULY.end, (HOLE,), (FILE,), off_grid=2)

REAL = Environment.of(None)
SEED_1 = Environment.of("seed 1")
SEED_2 = Environment.of("seed 2")


def bars(count: int = 3, value: str = "1.5", series: Series = BTC, month: Month = JULY) -> pa.Table:
    opens = [month.start + timedelta(hours=hour) for hour in range(count)]
    closes = [start + timedelta(hours=1, microseconds=-1) for start in opens]
    constants = {"symbol": series.symbol, "interval": series.interval, "source": "archive_monthly"}
    constants |= {"ingested_at": FETCHED} | dict.fromkeys(DECIMAL_COLUMNS, Decimal(value))
    columns = {name: [constant] * count for name, constant in constants.items()}
    columns |= {"open_time": opens, "close_time": closes, "trades": list(range(count))}
    return pa.table(columns, schema=KLINE_SCHEMA)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "raw") if request.param == "local" else f"memory://{uuid.uuid4().hex}/raw"


@pytest.fixture
def zone(root: str) -> RawZone:
    return RawZone(root)


@pytest.fixture
def local(tmp_path: Path) -> RawZone:
    return RawZone(str(tmp_path / "raw"))


def all_files(root: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(root)
    return [found.rsplit("/", 1)[-1] for found in fs.find(path)]


# --- history: the contract -------------------------------------------------------------------------------------


def test_a_month_reads_back_as_it_was_written(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars())


def test_writing_a_month_tells_the_size_of_its_file(zone: RawZone) -> None:
    size = zone.write_history(BTC, JULY, bars(), PROVENANCE)
    [file] = zone.history_files()
    with fsspec.open(file.path, "rb") as opened:
        assert len(opened.read()) == size


def test_a_month_is_replaced_whole(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(5, "1"), PROVENANCE)
    zone.write_history(BTC, JULY, bars(2, "2"), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars(2, "2"))


def test_rows_and_origin_are_read_together(zone: RawZone) -> None:
    assert zone.read_landed(BTC, JULY) is None
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    rows, provenance = zone.read_landed(BTC, JULY)
    assert rows.equals(bars(), check_metadata=True)
    assert provenance == PROVENANCE


def test_a_month_that_has_not_landed_cannot_be_read(zone: RawZone) -> None:
    with pytest.raises(FileNotFoundError):
        zone.read_history(BTC, JULY)


def test_rows_of_another_shape_leave_the_month_as_it_was(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    with pytest.raises(ValueError, match="names"):
        zone.write_history(BTC, JULY, bars().drop_columns(["trades"]), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars())


def test_provenance_reads_back_as_it_was_written(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.provenance(BTC, JULY) == PROVENANCE


def test_a_month_that_has_not_landed_has_no_provenance(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.provenance(BTC, AUGUST) is None


def test_a_landed_month_is_described_from_its_footer(zone: RawZone) -> None:
    size = zone.write_history(BTC, JULY, bars(3), PROVENANCE)
    landed = zone.describe(zone.history_files()[0])
    assert (landed.provenance, landed.bytes) == (PROVENANCE, size)
    assert landed.first_open_time == JULY.start
    assert landed.last_close_time == JULY.start + timedelta(hours=3, microseconds=-1)


def test_a_month_without_rows_is_described_without_an_extent(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(0), PROVENANCE)
    landed = zone.describe(zone.history_files()[0])
    assert (landed.first_open_time, landed.last_close_time) == (None, None)


def _land_several(zone: RawZone) -> None:
    for series, month in [(ETH, JULY), (BTC, AUGUST), (Series("BTCUSDT", "5m"), JULY), (BTC, JULY)]:
        zone.write_history(series, month, bars(1, series=series, month=month), PROVENANCE)


def test_landed_months_are_listed_by_series_and_month(zone: RawZone) -> None:
    _land_several(zone)
    assert [(str(file.series), str(file.month)) for file in zone.history_files()] == [
        ("BTCUSDT 1h", "2024-07"),
        ("BTCUSDT 1h", "2024-08"),
        ("BTCUSDT 5m", "2024-07"),
        ("ETHUSDT 1h", "2024-07"),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"interval": "5m"}, ["BTCUSDT 5m 2024-07"]),
        ({"symbols": ["ETHUSDT"]}, ["ETHUSDT 1h 2024-07"]),
        ({"symbols": ["ETHUSDT", "BTCUSDT"], "interval": "5m"}, ["BTCUSDT 5m 2024-07"]),
        ({"months": [AUGUST]}, ["BTCUSDT 1h 2024-08"]),
        ({"months": []}, []),
        ({"symbols": ["SOLUSDT"]}, []),
    ],
    ids=str,
)
def test_only_the_months_asked_for_are_listed(zone: RawZone, wanted: dict[str, list[str]], found: list[str]) -> None:
    _land_several(zone)
    assert [f"{file.series} {file.month}" for file in zone.history_files(**wanted)] == found


def test_an_empty_zone_lists_nothing(zone: RawZone) -> None:
    assert (zone.history_files(), zone.series(), zone.quarantined()) == ([], [], [])


def test_a_listed_path_leads_to_the_parquet_file(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    [file] = zone.history_files()
    with fsspec.open(file.path, "rb") as opened:
        assert pq.read_table(opened).num_rows == 3


def test_a_month_landed_by_someone_else_is_listed(root: str, zone: RawZone) -> None:
    zone.history_files()
    RawZone(root).write_history(BTC, JULY, bars(), PROVENANCE)
    assert [file.month for file in zone.history_files()] == [JULY]


def test_the_series_that_have_landed_are_listed_once(zone: RawZone) -> None:
    _land_several(zone)
    assert zone.series() == [Series("BTCUSDT", "1h"), Series("BTCUSDT", "5m"), Series("ETHUSDT", "1h")]


values = st.decimals(0, Decimal("99999999999999999999.99999999"), places=8, allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(st.lists(values, min_size=1, max_size=3))
def test_every_decimal_survives_the_file_to_the_last_digit(prices: list[Decimal]) -> None:
    zone = RawZone(f"memory://{uuid.uuid4().hex}")
    tables = [bars(1, str(price)) for price in prices]
    zone.write_history(BTC, JULY, pa.concat_tables(tables), PROVENANCE)
    assert zone.read_history(BTC, JULY)["high"].to_pylist() == prices


# --- differences, first bars, symbols: the contract -------------------------------------------------------------


def difference(hour: int, value: str = "1", found_at: datetime = FETCHED) -> pa.Table:
    row = {"symbol": "BTCUSDT", "interval": "1h", "open_time": JULY.start + timedelta(hours=hour), "field": "close"}
    row |= {"kept_source": "rest", "kept_value": value, "other_source": "stream", "other_value": "2"}
    return pa.Table.from_pylist([row | {"found_at": found_at}], schema=DIFFERENCE_SCHEMA)


def test_differences_are_kept_once_in_order_with_when_they_were_first_found(zone: RawZone) -> None:
    assert zone.read_differences(BTC, JULY).num_rows == 0
    zone.add_differences(BTC, JULY, difference(5))
    later = difference(5, found_at=FETCHED + timedelta(days=1))
    zone.add_differences(BTC, JULY, pa.concat_tables([difference(3), later]))
    expected = pa.concat_tables([difference(3), difference(5)])
    assert zone.read_differences(BTC, JULY).equals(expected)
    assert [(file.series, file.month) for file in zone.difference_files()] == [(BTC, JULY)]


def test_known_differences_do_not_change_their_file(zone: RawZone) -> None:
    zone.add_differences(BTC, JULY, difference(5))
    before = zone.difference_files()
    zone.add_differences(BTC, JULY, difference(5, found_at=FETCHED + timedelta(days=1)))
    assert zone.difference_files() == before


def test_the_first_bar_of_a_series_is_remembered(zone: RawZone) -> None:
    assert zone.first_open_time(BTC) is None
    zone.write_first_open_time(BTC, JULY.start)
    assert (zone.first_open_time(BTC), zone.first_open_time(ETH)) == (JULY.start, None)


def symbols(fetched_at: datetime, status: str) -> pa.Table:
    row = {"symbol": "BTCUSDT", "status": status, "base_asset": "BTC", "quote_asset": "USDT", "fetched_at": fetched_at}
    return pa.Table.from_pylist([row], schema=SYMBOL_SCHEMA)


def test_what_the_exchange_trades_is_kept_each_time(zone: RawZone) -> None:
    assert (zone.latest_symbols(), zone.symbol_files()) == (None, [])
    for day, status in [(2, "BREAK"), (1, "TRADING"), (3, "HALT")]:
        zone.write_symbols(symbols(JULY.start + timedelta(days=day), status))
    assert zone.latest_symbols()["status"].to_pylist() == ["HALT"]
    kept = []
    for path in zone.symbol_files():
        with fsspec.open(path, "rb") as opened:
            kept += pq.read_table(opened)["status"].to_pylist()
    assert kept == ["TRADING", "BREAK", "HALT"]


def test_a_file_changed_to_another_of_the_same_size_has_another_version(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(value="1"), PROVENANCE)
    (first,) = zone.history_files()
    zone.write_history(BTC, JULY, bars(value="2"), PROVENANCE)
    assert [file.version for file in zone.history_files()] != [first.version]


@pytest.mark.parametrize("footer", [{}, {b"klinehouse": b"{}"}, {b"klinehouse": b"no json"}])
def test_a_file_that_does_not_say_where_it_came_from_is_named(zone: RawZone, footer: dict[bytes, bytes]) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    [file] = zone.history_files()
    with fsspec.open(file.path, "wb") as opened:
        pq.write_table(bars().replace_schema_metadata(footer), opened)
    for ask in (zone.provenance, zone.read_landed):
        with pytest.raises(ConfigurationError, match=r"2024-07\.parquet does not say .* Delete it"):
            ask(BTC, JULY)


# --- quarantine: the contract ----------------------------------------------------------------------------------


def refuse(zone: RawZone, name: str = NAME, reason: str = "not a zip") -> str:
    return zone.quarantine(name, b"broken", {"url": URL, "reason": reason})


def test_a_refused_file_is_kept_as_it_came(zone: RawZone) -> None:
    path = refuse(zone)
    with zone._fs.open(path, "rb") as opened:
        assert opened.read() == b"broken"


def test_a_refused_file_is_listed_with_its_reason(zone: RawZone) -> None:
    refuse(zone)
    [note] = zone.quarantined()
    assert (note["url"], note["reason"], note["bytes"]) == (URL, "not a zip", 6)
    assert zone.quarantine_note(NAME) == note
    assert zone.quarantine_note("other.zip") is None


def test_a_file_refused_again_is_listed_once_with_the_last_reason(zone: RawZone) -> None:
    refuse(zone)
    refuse(zone, reason="wrong checksum")
    assert [note["reason"] for note in zone.quarantined()] == ["wrong checksum"]


def test_a_released_file_leaves_nothing_behind(root: str, zone: RawZone) -> None:
    refuse(zone)
    zone.release(Series("BTCUSDT", "5m"), "2024-07")
    assert all_files(root) == []


def test_one_released_file_leaves_nothing_behind(root: str, zone: RawZone) -> None:
    refuse(zone)
    zone.release_file(NAME)
    zone.release_file(NAME)
    assert all_files(root) == []


@pytest.mark.parametrize(
    ("interval", "period", "kept"),
    [
        ("5m", "2024-07", ["BTCUSDT-1mo-2024-07.zip", "BTCUSDT-5m-2024-08-01.zip"]),
        ("5m", "2024-08-01", ["BTCUSDT-1mo-2024-07.zip", "BTCUSDT-5m-2024-07-03.zip", "BTCUSDT-5m-2024-07.zip"]),
        ("1M", "2024-07", ["BTCUSDT-5m-2024-07-03.zip", "BTCUSDT-5m-2024-07.zip", "BTCUSDT-5m-2024-08-01.zip"]),
    ],
)
def test_a_month_is_released_with_its_days(zone: RawZone, interval: str, period: str, kept: list[str]) -> None:
    for name in ("5m-2024-07", "5m-2024-07-03", "5m-2024-08-01", "1mo-2024-07"):
        refuse(zone, f"BTCUSDT-{name}.zip")
    zone.release(Series("BTCUSDT", interval), period)
    assert [note["name"] for note in zone.quarantined()] == kept


def test_eight_processes_may_release_the_same(local: RawZone) -> None:
    for number in range(40):
        refuse(local, f"BTCUSDT-5m-2024-07-{number:02d}.zip")
    done: list[int] = []

    def release(number: int) -> None:
        RawZone(local.root).release(Series("BTCUSDT", "5m"), "2024-07")
        local.quarantined()
        done.append(number)

    _in_threads(8, release)
    assert (len(done), local.quarantined()) == (8, [])


def test_releasing_a_file_keeps_the_others(zone: RawZone) -> None:
    other = NAME.replace("-07", "-08")
    refuse(zone)
    refuse(zone, other)
    zone.release(Series("BTCUSDT", "5m"), "2024-07")
    assert [note["name"] for note in zone.quarantined()] == [other]


def test_releasing_a_file_that_was_not_refused_is_no_error(root: str, zone: RawZone) -> None:
    zone.release(Series("BTCUSDT", "5m"), "2024-07")
    assert all_files(root) == []


# --- environment: the contract ---------------------------------------------------------------------------------


def test_an_empty_zone_has_no_environment(zone: RawZone) -> None:
    assert zone.environment() is None


@pytest.mark.parametrize("environment", [REAL, SEED_1], ids=str)
def test_a_claimed_zone_knows_what_feeds_it(root: str, zone: RawZone, environment: Environment) -> None:
    zone.claim(environment)
    assert RawZone(root).environment() == environment


@pytest.mark.parametrize("environment", [REAL, SEED_1], ids=str)
def test_a_zone_may_be_claimed_again_by_what_feeds_it(root: str, zone: RawZone, environment: Environment) -> None:
    zone.claim(environment)
    RawZone(root).claim(environment)
    assert RawZone(root).environment() == environment


@pytest.mark.parametrize(
    ("owner", "other"), [(REAL, SEED_1), (SEED_1, REAL), (SEED_1, SEED_2)], ids=lambda environment: str(environment)
)
def test_a_zone_refuses_what_does_not_feed_it(root: str, zone: RawZone, owner: Environment, other: Environment) -> None:
    zone.claim(owner)
    with pytest.raises(ConfigurationError) as caught:
        RawZone(root).claim(other)
    assert f"holds data of {owner}, and the settings lead to {other}" in caught.value.message
    assert "KLINEHOUSE_ARCHIVE_URL and KLINEHOUSE_REST_URL" in caught.value.remedy


def test_a_zone_refuses_another_environment_from_whoever_claimed_it(zone: RawZone) -> None:
    zone.claim(SEED_1)
    with pytest.raises(ConfigurationError):
        zone.claim(SEED_2)


def test_a_refused_claim_changes_nothing(root: str, zone: RawZone) -> None:
    zone.claim(SEED_1)
    with pytest.raises(ConfigurationError):
        RawZone(root).claim(REAL)
    assert RawZone(root).environment() == SEED_1


def test_the_environment_is_written_for_others_to_read(root: str, zone: RawZone) -> None:
    zone.claim(SEED_1)
    with fsspec.open(f"{root}/environment.json", "rb") as file:
        assert json.load(file) == {"source_environment": "simulated", "simulation": "seed 1"}


def test_a_probe_leaves_nothing_behind(root: str, zone: RawZone) -> None:
    zone.probe_writable()
    assert all_files(root) == []


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


def _in_threads(count: int, task: Callable[[int], None]) -> None:
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        task(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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

    _in_threads(8, write)
    assert len(seen) == 8
    assert set(seen) in [{bytes([number]) * 10_000} for number in range(8)]


def test_writers_that_lose_leave_nothing_behind(tmp_path: Path) -> None:
    _in_threads(8, lambda number: write_durably(tmp_path / "once", bytes([number]), keep_existing=True))
    assert [path.name for path in tmp_path.iterdir()] == ["once"]


def test_of_eight_environments_that_claim_one_zone_exactly_one_wins(tmp_path: Path) -> None:
    won, lost = [], []

    def claim(number: int) -> None:
        environment = Environment.of(f"seed {number}")
        try:
            RawZone(str(tmp_path / "raw")).claim(environment)
            won.append(environment)
        except ConfigurationError:
            lost.append(environment)

    _in_threads(8, claim)
    assert won == [RawZone(str(tmp_path / "raw")).environment()]
    assert len(lost) == 7


def test_eight_threads_of_one_environment_claim_a_zone_together(local: RawZone) -> None:
    claimed: list[int] = []

    def claim(number: int) -> None:
        local.claim(SEED_1)
        claimed.append(number)

    _in_threads(8, claim)
    assert sorted(claimed) == list(range(8))


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
