"""Layers that differ are found, row for row."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.homes import compute_tables, copied, home, put, random_walk

from ingestion.klines import Series
from ingestion.settings import Settings
from warehouse.compare import compare_layers
from warehouse.engine import connect
from warehouse.serving import publish, served_files

SERIES = Series("BTCUSDT", "1h")
START = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 24 * 40


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = home(tmp_path_factory.mktemp("built"), symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, HOURS))
    compute_tables(settings)
    return settings


@pytest.fixture
def built(template: Settings, tmp_path: Path) -> Settings:
    settings = copied(template, tmp_path / "home")
    publish(settings)
    return settings


def test_layers_that_are_equal_have_no_differences(built: Settings) -> None:
    found = compare_layers(built)
    assert found.differences == ()
    assert found.raw_rows == HOURS
    assert found.warehouse_rows == found.serving_rows == HOURS + HOURS // 4 + HOURS // 24


@pytest.mark.parametrize(
    ("statement", "counts"),
    [
        ("delete from {bars} where open_time = '2024-01-05 07:00:00+00' and \"interval\" = '1h'", (1, 0, 0)),
        ("update {bars} set volume = volume + 1e-8 where open_time = '2024-01-05 07:00:00+00'", (0, 0, 1)),
        ("update {bars} set trades = trades + 1 where open_time = '2024-01-05 07:00:00+00'", (0, 0, 1)),
    ],
)
def test_a_row_that_is_gone_or_changed_in_the_warehouse_differs_from_both_neighbours(
    built: Settings, statement: str, counts: tuple[int, int, int]
) -> None:
    with connect(built) as connection:
        connection.execute(statement.format(bars="crypto_analytics.market_data_unified"))
    raw, served = compare_layers(built).differences
    assert (raw.layers, raw.month, raw.only_left, raw.only_right, raw.unequal) == (
        "raw / warehouse",
        "2024-01",
        *counts,
    )
    only_left, only_right, unequal = counts
    assert (served.only_left, served.only_right, served.unequal) == (only_right, only_left, unequal)
    assert raw.first_open_time == datetime(2024, 1, 5, 7, tzinfo=UTC)


def test_a_served_file_that_was_swapped_differs(built: Settings) -> None:
    january, february = (
        next(file for file in served_files(built) if (file.interval, file.month) == ("1h", month))
        for month in ("2024-01", "2024-02")
    )
    Path(january.path).write_bytes(Path(february.path).read_bytes())
    found = {(one.layers, one.month): (one.only_left, one.only_right) for one in compare_layers(built).differences}
    assert found[("warehouse / serving", "2024-01")] == (31 * 24, 0)
