"""Bars that come by stream are, at every moment, what a warehouse built at once from the same bars has."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.homes import bars, compute_bars, compute_tables, copied, home, put, random_walk
from support.oracles import assert_tables_equal
from support.streamed import between, copied_raw_zone, streamed

from ingestion.klines import Series
from ingestion.microbatch import stretches
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.compare import compare_layers
from warehouse.live import LiveWarehouse
from warehouse.served_files import BARS
from warehouse.serving import publish, reading, run_query, served_files

START = datetime(2024, 6, 20, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
# History has nine days, and the stream goes on for three, over the end of a month.
KNOWN, ALL = 96 * 9, 96 * 12
KLINES = pa.concat_tables(
    random_walk(Series(symbol, "15m"), START, ALL, seed=seed) for seed, symbol in enumerate(SYMBOLS)
)


def at(position: int) -> datetime:
    return START + timedelta(minutes=15 * position)


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose history ends at KNOWN, built; for copying."""
    settings = home(tmp_path_factory.mktemp("landed"), symbols=",".join(SYMBOLS), interval="15m")
    for symbol in SYMBOLS:
        known = KLINES.filter(pc.and_(pc.equal(KLINES["symbol"], symbol), pc.less(KLINES["open_time"], at(KNOWN))))
        put(settings, Series(symbol, "15m"), known, covered_until=at(KNOWN))
    compute_tables(settings)
    return settings


@pytest.fixture
def settings(landed: Settings, tmp_path: Path) -> Settings:
    mine = copied(landed, tmp_path / "home")
    publish(mine)
    return mine


@pytest.fixture
def live(settings: Settings) -> Iterator[LiveWarehouse]:
    with LiveWarehouse(settings) as warehouse:
        yield warehouse


def come(live: LiveWarehouse, settings: Settings, rows: pa.Table) -> None:
    """A micro-batch of these rows."""
    rows = streamed(rows)
    StreamZone(settings.raw_root).write(rows)
    for stretch in stretches(rows):
        live.apply(stretch)


def rebuilt(settings: Settings, tmp_path: Path) -> pa.Table:
    other = copied_raw_zone(settings, tmp_path / "rebuilt")
    compute_bars(other)
    return bars(other)


def assert_as_rebuilt(live: LiveWarehouse, settings: Settings, tmp_path: Path) -> None:
    live.close()
    assert_tables_equal(bars(settings), rebuilt(settings, tmp_path))


def test_bars_that_come_one_by_one_are_those_of_a_rebuild(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    """Over the end of an hour, of a day and of a month, and a batch in which one symbol is late."""
    start = 96 * 10 + 90
    come(live, settings, between(KLINES, KNOWN, start))
    for position in range(start, start + 10):
        come(live, settings, between(KLINES, position, position + 1))
    btc, eth = (between(KLINES, start + 10, start + 11).slice(i, 1) for i in range(2))
    come(live, settings, btc)
    come(live, settings, eth)
    assert_as_rebuilt(live, settings, tmp_path)


def test_bars_that_come_late_and_in_disorder_are_those_of_a_rebuild(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    order = list(range(KNOWN, ALL, 24))
    random.Random(3).shuffle(order)
    for position in order:
        come(live, settings, between(KLINES, position, position + 24))
    live.close()
    expected = rebuilt(settings, tmp_path)
    assert expected.num_rows > 2 * ALL
    assert_tables_equal(bars(settings), expected)


def test_the_first_bars_after_an_outage_close_what_was_under_way_before_it(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    """Hours and days that nobody traded to their end are over when trading goes on."""
    come(live, settings, between(KLINES, KNOWN, KNOWN + 42))
    come(live, settings, between(KLINES, KNOWN + 140, KNOWN + 141))
    come(live, settings, between(KLINES, KNOWN + 110, KNOWN + 111))
    assert_as_rebuilt(live, settings, tmp_path)


def test_a_bar_that_comes_again_with_other_values_counts_as_the_latest_says(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    come(live, settings, between(KLINES, KNOWN, KNOWN + 20))
    other = between(KLINES, KNOWN + 5, KNOWN + 6).to_pylist()
    for row in other:
        row["close"] = row["high"]
        row["close_time"] += timedelta(microseconds=1)  # ingested later, see streamed
    come(live, settings, pa.Table.from_pylist(other, schema=KLINES.schema))
    assert_as_rebuilt(live, settings, tmp_path)


def test_a_batch_that_comes_again_changes_nothing(live: LiveWarehouse, settings: Settings) -> None:
    come(live, settings, between(KLINES, KNOWN, KNOWN + 4))
    live.close()
    once = bars(settings)
    come(live, settings, between(KLINES, KNOWN, KNOWN + 4))
    live.close()
    assert bars(settings).equals(once)
    assert len(StreamZone(settings.raw_root).files()) == 1


def test_readers_see_the_bars_of_a_batch(live: LiveWarehouse, settings: Settings) -> None:
    come(live, settings, between(KLINES, KNOWN, KNOWN + 4))
    found = run_query(
        settings,
        """select "interval", max(open_time), count(ema_50) = count(*) - 98
        from market_data_unified where "interval" in ('15m', '1h') group by 1 order by 1""",
    ).rows
    assert found == [("15m", at(KNOWN + 3), True), ("1h", at(KNOWN), True)]


def assert_served(live: LiveWarehouse, settings: Settings) -> None:
    """Readers see every bar of the warehouse once, and no other."""
    live.close()
    with reading(settings) as connection:
        served = connection.sql('from market_data_unified order by symbol, "interval", open_time').to_arrow_table()
    assert served.to_pylist() == bars(settings).to_pylist()
    counted = sum(file.rows for file in served_files(settings) if file.table_name == BARS)
    assert counted == served.num_rows


def test_bars_that_have_just_closed_are_one_file_beside_those_of_the_months(
    live: LiveWarehouse, settings: Settings
) -> None:
    before = {file.path for file in served_files(settings)}
    come(live, settings, between(KLINES, KNOWN, KNOWN + 4))
    come(live, settings, between(KLINES, KNOWN + 4, KNOWN + 8))
    added = {file.path for file in served_files(settings)} - before
    assert len(added) == 1
    assert before < {file.path for file in served_files(settings)}
    newest = {(file.symbol, file.interval): file.rows for file in served_files(settings) if file.is_newest}
    assert newest == {(symbol, interval): rows for symbol in SYMBOLS for interval, rows in (("15m", 8), ("1h", 2))}
    assert_served(live, settings)


def test_what_is_served_is_what_is_in_the_warehouse_whatever_comes(live: LiveWarehouse, settings: Settings) -> None:
    """New bars, a hole that is filled, a bar that comes again, one that history has, the next month, one symbol."""
    july = 96 * 11
    pieces = [(KNOWN, KNOWN + 5), (KNOWN + 9, KNOWN + 12), (KNOWN + 5, KNOWN + 9), (KNOWN + 2, KNOWN + 3)]
    for first, last in (*pieces, (KNOWN - 50, KNOWN - 49), (july - 2, july), (july, july + 5), (july - 10, july + 7)):
        come(live, settings, between(KLINES, first, last))
        assert_served(live, settings)
    come(live, settings, between(KLINES, july + 7, july + 8).slice(0, 1))
    assert_served(live, settings)


def test_publishing_history_takes_the_newest_bars_into_their_months(live: LiveWarehouse, settings: Settings) -> None:
    come(live, settings, between(KLINES, KNOWN, ALL))
    live.close()
    publish(settings)
    assert not any(file.is_newest for file in served_files(settings))
    assert_served(live, settings)


def test_many_newest_bars_become_part_of_their_months(
    live: LiveWarehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.live._NEWEST_BARS", 20)
    for first, has_newest in ((KNOWN, True), (KNOWN + 8, False)):
        come(live, settings, between(KLINES, first, first + 8))
        live.tidy()
        assert any(file.is_newest for file in served_files(settings)) == has_newest
    assert_served(live, settings)


def test_a_symbol_without_new_bars_is_left_alone(live: LiveWarehouse, settings: Settings) -> None:
    live.close()
    before = bars(settings, "symbol = 'ETHUSDT'")
    come(live, settings, between(KLINES, KNOWN, KNOWN + 8).slice(0, 8))
    live.close()
    assert bars(settings, "symbol = 'ETHUSDT'").equals(before)
    assert bars(settings, "symbol = 'BTCUSDT' and \"interval\" = '15m'").num_rows == KNOWN + 8


def test_a_home_may_begin_with_the_stream(tmp_path: Path) -> None:
    settings = home(tmp_path / "new", symbols=",".join(SYMBOLS), interval="15m")
    with LiveWarehouse(settings) as live:
        for position in range(3):
            come(live, settings, between(KLINES, position, position + 1))
    assert run_query(settings, "select count(*) from market_data_unified").rows == [(6,)]
    assert_tables_equal(bars(settings), rebuilt(settings, tmp_path))


def test_a_warehouse_that_was_deleted_is_built_again_whole(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    live.close()
    settings.warehouse_path.unlink()
    come(live, settings, between(KLINES, KNOWN, KNOWN + 2))
    assert_as_rebuilt(live, settings, tmp_path)


def test_building_history_again_keeps_what_came_by_stream(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    come(live, settings, between(KLINES, KNOWN, KNOWN + 100))
    live.close()
    expected = bars(settings)
    compute_tables(settings)
    assert_tables_equal(bars(settings), expected)


def test_tidying_puts_files_together_and_brings_gaps_and_dimensions_up_to_date(
    live: LiveWarehouse, settings: Settings, tmp_path: Path
) -> None:
    for position in set(range(31)) - {10}:
        StreamZone(settings.raw_root).write(streamed(between(KLINES, KNOWN + position, KNOWN + position + 1)))
    come(live, settings, pa.concat_tables([between(KLINES, KNOWN, KNOWN + 1), between(KLINES, KNOWN + 30, KNOWN + 31)]))
    live.tidy()
    assert len(StreamZone(settings.raw_root).files()) == 1
    assert run_query(settings, "select symbol, first_missing_open_time, missing_bars from klines_gaps").rows == [
        (symbol, at(KNOWN + 10), 1) for symbol in SYMBOLS
    ]
    assert run_query(settings, "select distinct last_open_time from dim_symbols").rows == [(at(KNOWN + 30),)]
    assert_as_rebuilt(live, settings, tmp_path)


def test_the_layers_agree_about_what_came_by_stream(live: LiveWarehouse, settings: Settings) -> None:
    come(live, settings, between(KLINES, KNOWN, KNOWN + 4))
    live.close()
    compared = compare_layers(settings)
    assert (compared.raw_rows, compared.differences) == (2 * (KNOWN + 4), ())
