"""The contract of the raw zone, on a local folder and on an object store."""

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.raw_zones import (
    AUGUST,
    BTC,
    ETH,
    FETCHED,
    FILE,
    JULY,
    PROVENANCE,
    URL,
    all_files,
    bars,
    in_threads,
    opened,
)

from ingestion.errors import ConfigurationError
from ingestion.klines import Series
from ingestion.raw_zone import DIFFERENCE_SCHEMA, Environment, RawZone
from ingestion.symbols import SYMBOL_SCHEMA

PROJECT = Path(__file__).parents[2]
NAME = URL.rsplit("/", 1)[-1]

REAL = Environment.of(None)
SEED_1 = Environment.of("seed 1")
SEED_2 = Environment.of("seed 2")


@pytest.fixture
def zone(root: str) -> RawZone:
    return RawZone(root)


# --- history ---------------------------------------------------------------------------------------------------


def test_a_month_reads_back_as_it_was_written(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars())


def test_writing_and_listing_a_month_tell_the_size_of_its_file(zone: RawZone) -> None:
    size = zone.write_history(BTC, JULY, bars(), PROVENANCE)
    [file] = zone.history_files()
    with opened(file.path, "rb") as file:
        assert len(file.read()) == size


def test_a_month_is_replaced_whole(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(5, "1"), PROVENANCE)
    zone.write_history(BTC, JULY, bars(2, "2"), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars(2, "2"))


def test_a_month_that_has_landed_is_not_created_again(zone: RawZone) -> None:
    other = replace(PROVENANCE, rows=2)
    assert zone.create_history(BTC, JULY, bars(3), PROVENANCE)
    assert not zone.create_history(BTC, JULY, bars(2), other)
    assert zone.read_landed(BTC, JULY) == (bars(3), PROVENANCE)


def test_a_month_created_twice_by_the_same_is_created(zone: RawZone) -> None:
    assert zone.create_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.create_history(BTC, JULY, bars(), PROVENANCE)


def test_of_eight_that_create_a_month_exactly_one_wins(root: str) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        if RawZone(root).create_history(BTC, JULY, bars(number), replace(PROVENANCE, rows=number)):
            won.append(number)

    in_threads(8, create)
    assert won == [RawZone(root).read_history(BTC, JULY).num_rows]


def test_who_reads_while_others_write_sees_whole_months_alone(root: str, zone: RawZone) -> None:
    versions = {count: bars(count, str(count)) for count in (20_000, 30_000)}

    def write(count: int) -> None:
        zone.write_history(BTC, JULY, versions[count], replace(PROVENANCE, rows=count))

    write(20_000)
    done = threading.Event()

    def rewrite() -> None:
        for _ in range(10):
            for count in versions:
                write(count)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        rows, provenance = zone.read_landed(BTC, JULY)
        assert provenance.rows == rows.num_rows
        assert rows.equals(versions[rows.num_rows])
        assert zone.describe(zone.history_files()[0]).provenance.rows in versions
    writer.join()


def test_an_origin_longer_than_most_is_read_whole(zone: RawZone) -> None:
    many = replace(PROVENANCE, files=(FILE,) * 500)
    zone.write_history(BTC, JULY, bars(), many)
    assert zone.provenance(BTC, JULY) == many
    assert zone.describe(zone.history_files()[0]).provenance == many


def test_months_that_speak_of_a_time_are_found_by_name(zone: RawZone) -> None:
    _land_several(zone)
    found = zone.history_of([BTC, ETH], [JULY, AUGUST], covering=JULY.start)
    assert found == [file.path for file in zone.history_files("1h")]
    assert zone.history_of([BTC], [JULY], covering=JULY.end) == []


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
    zone.write_history(BTC, JULY, bars(3), PROVENANCE)
    landed = zone.describe(zone.history_files()[0])
    assert landed.provenance == PROVENANCE
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
    with opened(file.path, "rb") as file:
        assert pq.read_table(file).num_rows == 3


def test_a_month_landed_by_someone_else_is_listed(root: str, zone: RawZone) -> None:
    zone.history_files()
    RawZone(root).write_history(BTC, JULY, bars(), PROVENANCE)
    assert [file.month for file in zone.history_files()] == [JULY]


def test_the_series_that_have_landed_are_listed_once(zone: RawZone) -> None:
    _land_several(zone)
    assert zone.series() == [Series("BTCUSDT", "1h"), Series("BTCUSDT", "5m"), Series("ETHUSDT", "1h")]


# --- differences, first bars, symbols --------------------------------------------------------------------------


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
        with opened(path, "rb") as file:
            kept += pq.read_table(file)["status"].to_pylist()
    assert kept == ["TRADING", "BREAK", "HALT"]


def test_a_file_changed_to_another_of_the_same_size_has_another_version(zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(value="1"), PROVENANCE)
    (first,) = zone.history_files()
    zone.write_history(BTC, JULY, bars(value="2"), PROVENANCE)
    assert [file.version for file in zone.history_files()] != [first.version]


@pytest.mark.parametrize("footer", [{}, {b"klinehouse": b"{}"}, {b"klinehouse": b"no json"}])
def test_a_file_that_does_not_say_where_it_came_from_is_named(zone: RawZone, footer: dict[bytes, bytes]) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    [listed] = zone.history_files()
    with opened(listed.path, "wb") as file:
        pq.write_table(bars().replace_schema_metadata(footer), file)
    for ask in (zone.provenance, zone.read_landed):
        with pytest.raises(ConfigurationError, match=r"2024-07\.parquet does not say .* Delete it"):
            ask(BTC, JULY)


# --- quarantine ------------------------------------------------------------------------------------------------


def refuse(zone: RawZone, name: str = NAME, reason: str = "not a zip") -> str:
    return zone.quarantine(name, b"broken", {"url": URL, "reason": reason})


def test_a_refused_file_is_kept_as_it_came(zone: RawZone) -> None:
    path = refuse(zone)
    with opened(path) as file:
        assert file.read() == b"broken"


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


def test_eight_threads_may_release_the_same(root: str, zone: RawZone) -> None:
    for number in range(40):
        refuse(zone, f"BTCUSDT-5m-2024-07-{number:02d}.zip")
    done: list[int] = []

    def release(number: int) -> None:
        RawZone(root).release(Series("BTCUSDT", "5m"), "2024-07")
        zone.quarantined()
        done.append(number)

    in_threads(8, release)
    assert (len(done), zone.quarantined()) == (8, [])


def test_releasing_a_file_keeps_the_others(zone: RawZone) -> None:
    other = NAME.replace("-07", "-08")
    refuse(zone)
    refuse(zone, other)
    zone.release(Series("BTCUSDT", "5m"), "2024-07")
    assert [note["name"] for note in zone.quarantined()] == [other]


def test_releasing_a_file_that_was_not_refused_is_no_error(root: str, zone: RawZone) -> None:
    zone.release(Series("BTCUSDT", "5m"), "2024-07")
    assert all_files(root) == []


# --- environment -----------------------------------------------------------------------------------------------


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
    with opened(f"{root}/environment.json", "rb") as file:
        assert json.load(file) == {"source_environment": "simulated", "simulation": "seed 1"}


def test_of_eight_environments_that_claim_one_zone_exactly_one_wins(root: str) -> None:
    won, lost = [], []

    def claim(number: int) -> None:
        environment = Environment.of(f"seed {number}")
        try:
            RawZone(root).claim(environment)
            won.append(environment)
        except ConfigurationError:
            lost.append(environment)

    in_threads(8, claim)
    assert won == [RawZone(root).environment()]
    assert len(lost) == 7


# Says that it is ready, waits to be told to begin, and says what became of it.
_CLAIM = """
import sys
from ingestion.errors import ConfigurationError
from ingestion.raw_zone import Environment, RawZone

zone, environment = RawZone(sys.argv[1]), Environment.of(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    zone.claim(environment)
    print(environment.simulation)
except ConfigurationError:
    print("lost")
"""


def test_of_four_processes_that_claim_one_zone_exactly_one_wins(root: str) -> None:
    command = [sys.executable, "-c", _CLAIM, root]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, f"seed {number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
                )
            )
            for number in range(4)
        ]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for process in processes:
            process.stdin.write("begin\n")
            process.stdin.flush()
        told = [process.communicate()[0].strip() for process in processes]
    assert sorted(told)[:3] == ["lost"] * 3
    assert RawZone(root).environment().simulation in told


def test_eight_threads_of_one_environment_claim_a_zone_together(zone: RawZone) -> None:
    claimed: list[int] = []

    def claim(number: int) -> None:
        zone.claim(SEED_1)
        claimed.append(number)

    in_threads(8, claim)
    assert sorted(claimed) == list(range(8))


def test_a_probe_leaves_nothing_behind(root: str, zone: RawZone) -> None:
    zone.probe_writable()
    assert all_files(root) == []
