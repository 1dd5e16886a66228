"""The real archive: seven recorded months, across the change from milliseconds to microseconds."""

import csv
import io
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import urllib3

from ingestion.binance.archive import monthly_path
from ingestion.history.month import Outcome
from ingestion.history.run import land_history
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import load_settings
from ingestion.simulator.server import build_app, running

FIVE_MINUTES = Series("BTCUSDT", "5m")
RECORDED = [Month(2024, number) for number in range(7, 13)] + [Month(2025, 1)]
NOW = datetime(2025, 3, 1, tzinfo=UTC)
CSV_COLUMNS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "taker_buy_base_volume": 9,
    "taker_buy_quote_volume": 10,
}


def _recorded_rows(folder: Path) -> list[list[str]]:
    rows = []
    for month in RECORDED:
        with zipfile.ZipFile(folder / monthly_path(FIVE_MINUTES, month)) as archive:
            [name] = archive.namelist()
            rows += csv.reader(io.StringIO(archive.read(name).decode()))
    return rows


@pytest.mark.shared
def test_the_real_archive_lands_equal_to_its_text_and_only_once(shared_data: Path, tmp_path: Path) -> None:
    with running(build_app(data=shared_data / "archive", now=NOW)) as url:
        settings = load_settings(archive_url=url, home=tmp_path)
        landed = land_history(settings, [FIVE_MINUTES], RECORDED)
        before = urllib3.request("GET", f"{url}/simulator/requests").json()
        again = land_history(settings, [FIVE_MINUTES], RECORDED)
        after = urllib3.request("GET", f"{url}/simulator/requests").json()

    assert sum(result.rows for result in landed) == 61_920
    assert {result.outcome for result in again} == {Outcome.UNCHANGED}
    assert {kind: after[kind] - before.get(kind, 0) for kind in after} == {
        kind: len(RECORDED) if kind == "checksum" else 0 for kind in after
    }

    recorded = _recorded_rows(shared_data / "archive")
    zone = RawZone(settings.raw_root)
    tables = [zone.read_history(FIVE_MINUTES, month) for month in RECORDED]
    for name, column in CSV_COLUMNS.items():
        values = [value for table in tables for value in table[name].to_pylist()]
        assert values == [Decimal(row[column]) for row in recorded]
    for name, column in {"open_time": 0, "close_time": 6}.items():
        micros = [value for table in tables for value in table[name].cast("int64").to_pylist()]
        assert micros == [int(row[column]) * {13: 1000, 16: 1}[len(row[column])] for row in recorded]
    assert [n for table in tables for n in table["trades"].to_pylist()] == [int(row[8]) for row in recorded]


@pytest.mark.shared
def test_the_real_archive_has_no_gap_where_its_unit_changes(shared_data: Path, tmp_path: Path) -> None:
    with running(build_app(data=shared_data / "archive", now=NOW)) as url:
        settings = load_settings(archive_url=url, home=tmp_path)
        land_history(settings, [FIVE_MINUTES], RECORDED[-2:])
    zone = RawZone(settings.raw_root)
    last = zone.read_history(FIVE_MINUTES, Month(2024, 12)).slice(8927)
    first = zone.read_history(FIVE_MINUTES, Month(2025, 1)).slice(0, 1)
    new_year = datetime(2025, 1, 1, tzinfo=UTC)
    assert last["open_time"].to_pylist() == [new_year - timedelta(minutes=5)]
    assert last["close_time"].to_pylist() == [new_year - timedelta(milliseconds=1)]
    assert first["open_time"].to_pylist() == [new_year]
    assert first["close_time"].to_pylist() == [new_year + timedelta(minutes=5, microseconds=-1)]
