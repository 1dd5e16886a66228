"""What REST says differently from the archive is found, all of it and nothing else."""

import json
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from support.homes import home

from ingestion.grid import micros
from ingestion.history.compare import ComparedMonth, compare_with_rest
from ingestion.history.run import land_history
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.simulator.faults import Faults
from ingestion.simulator.server import build_app, running

MONTHS = [Month(2024, 1), Month(2024, 2)]
SERIES = Series("BTCUSDT", "1h")
UNIT = Decimal(10**8)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, list[dict[str, object]]]]:
    """A home landed from an archive in which two bars of a hundred differ from REST; what was planted."""
    with running(build_app(seed=1, faults=Faults(archive_differs=0.02))) as address:
        settings = home(tmp_path_factory.mktemp("differing"), archive_url=address, symbols="BTCUSDT", interval="1h")
        land_history(settings, [SERIES], MONTHS)
        with urllib.request.urlopen(f"{address}/simulator/fired") as response:
            found = json.load(response)["differences"]
        yield settings, found


def kept(settings: Settings) -> list[dict[str, object]]:
    zone = RawZone(settings.raw_root)
    return [
        row for file in zone.difference_files() for row in zone.read_differences(file.series, file.month).to_pylist()
    ]


def test_every_planted_difference_is_found_and_no_other(
    planted: tuple[Settings, list[dict[str, object]]],
) -> None:
    settings, bars = planted
    assert len(bars) > 15
    compared = compare_with_rest(settings, [SERIES], MONTHS)
    assert sum(one.differing_bars for one in compared) == len(bars)
    found = {
        (micros(row["open_time"]), row["field"]): (Decimal(row["kept_value"]), Decimal(row["other_value"]))
        for row in kept(settings)
        if row["field"] in ("close", "volume", "trades")
    }
    expected = {
        (bar["open_time"], field): (bar[field]["archive"] / scale, bar[field]["rest"] / scale)
        for bar in bars
        for field, scale in (("close", UNIT), ("volume", UNIT), ("trades", Decimal(1)))
        if bar[field]["archive"] != bar[field]["rest"]
    }
    assert found == expected
    assert {(row["kept_source"], row["other_source"]) for row in kept(settings)} == {("archive_monthly", "rest")}


def test_comparing_again_finds_the_same_and_changes_nothing(planted: tuple[Settings, list[dict[str, object]]]) -> None:
    settings, _ = planted
    first = compare_with_rest(settings, [SERIES], MONTHS)
    before = kept(settings)
    assert compare_with_rest(settings, [SERIES], MONTHS) == first
    assert kept(settings) == before


def test_what_has_not_landed_is_not_compared(planted: tuple[Settings, list[dict[str, object]]], tmp_path: Path) -> None:
    settings, _ = planted
    heard: list[ComparedMonth] = []
    elsewhere = settings.model_copy(update={"home": tmp_path})
    assert compare_with_rest(elsewhere, [SERIES], MONTHS, on_result=heard.append) == []
    assert heard == []
