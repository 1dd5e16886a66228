"""Bars are shown at once, and settled beside that: what readers see meanwhile is what a rebuild has."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from filelock import FileLock
from support.homes import bars, compute_bars, compute_tables, copied, home, put, random_walk
from support.oracles import assert_tables_equal
from support.streamed import between, by_symbol, copied_raw_zone, streamed

from ingestion.klines import Series
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt
from warehouse.dbt import BuildFailed
from warehouse.engine import streaming_turn
from warehouse.live_duckdb import LiveDuckDB
from warehouse.live_port import Applied
from warehouse.serving import publish, reading, run_query

START = datetime(2024, 6, 18, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
# More than the averages remember; the stream goes on over the end of the month.
KNOWN, ALL = 1_030, 1_300
KLINES = pa.concat_tables(
    random_walk(Series(symbol, "15m"), START, ALL, seed=seed) for seed, symbol in enumerate(SYMBOLS)
)
ALL_BARS = 'from market_data_unified order by symbol, "interval", open_time'


def at(position: int) -> datetime:
    return START + timedelta(minutes=15 * position)


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose history ends at KNOWN, built; for copying."""
    settings = home(tmp_path_factory.mktemp("landed"), symbols=",".join(SYMBOLS), interval="15m", warehouse_wait=0.2)
    for symbol, rows in zip(SYMBOLS, by_symbol(between(KLINES, 0, KNOWN)), strict=True):
        put(settings, Series(symbol, "15m"), rows, covered_until=at(KNOWN))
    compute_tables(settings)
    return settings


@pytest.fixture(scope="module")
def expected(landed: Settings, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """All bars, built at once."""
    other = copied_raw_zone(landed, tmp_path_factory.mktemp("expected"))
    StreamZone(other.raw_root).write(streamed(between(KLINES, KNOWN, ALL)))
    compute_bars(other)
    return bars(other)


@pytest.fixture
def settings(landed: Settings, tmp_path: Path) -> Settings:
    mine = copied(landed, tmp_path / "home")
    publish(mine)
    return mine


@pytest.fixture
def live(settings: Settings) -> Iterator[LiveDuckDB]:
    with LiveDuckDB(settings) as warehouse:
        yield warehouse


def come(live: LiveDuckDB, settings: Settings, first: int, last: int) -> Applied:
    """A micro-batch of the bars at these positions."""
    rows = streamed(between(KLINES, first, last))
    StreamZone(settings.raw_root).write(rows)
    return live.apply(rows)


def settle(live: LiveDuckDB, applied: Applied) -> None:
    until(live, lambda: applied.is_settled)


def until(live: LiveDuckDB, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        live.between_batches(nothing_waits=True)
        time.sleep(0.01)


def served(settings: Settings) -> pa.Table:
    with reading(settings) as connection:
        return connection.sql(ALL_BARS).to_arrow_table()


def only_base(rows: pa.Table, last: int) -> pa.Table:
    """Bars of the base interval, until a position."""
    return rows.filter(pc.and_(pc.equal(rows["interval"], "15m"), pc.less(rows["open_time"], at(last))))


def assert_shown(settings: Settings, expected: pa.Table, last: int) -> None:
    """Readers see all bars of the base interval until a position, each once, as a rebuild has them."""
    assert_tables_equal(only_base(served(settings), ALL), only_base(expected, last))


def test_bars_are_seen_before_the_warehouse_has_them(live: LiveDuckDB, settings: Settings, expected: pa.Table) -> None:
    for position in range(KNOWN, KNOWN + 4):
        assert come(live, settings, position, position + 1).visible_at is not None
        assert_shown(settings, expected, position + 1)


def test_bars_are_seen_while_another_process_has_the_warehouse(
    live: LiveDuckDB, settings: Settings, expected: pa.Table
) -> None:
    with FileLock(settings.warehouse_path.with_suffix(".queue"), is_singleton=False):
        until(live, lambda: not live._warehouse._turn.is_taken)
    with FileLock(settings.warehouse_path.with_suffix(".lock"), is_singleton=False):
        first = come(live, settings, KNOWN, KNOWN + 3)
        for _ in range(50):  # longer than a run waits for the warehouse
            live.between_batches(nothing_waits=True)
            time.sleep(0.01)
        second = come(live, settings, KNOWN + 3, KNOWN + 5)
        assert_shown(settings, expected, KNOWN + 5)
        assert not first.is_settled
    settle(live, second)
    assert first.is_settled
    live.close()
    assert_tables_equal(only_base(bars(settings), ALL), only_base(expected, KNOWN + 5))


def test_settled_bars_are_those_of_a_rebuild_and_so_are_the_longer_ones(
    live: LiveDuckDB, settings: Settings, expected: pa.Table
) -> None:
    for first in range(KNOWN, ALL, 90):
        applied = come(live, settings, first, min(first + 90, ALL))
        assert_shown(settings, expected, min(first + 90, ALL))
        settle(live, applied)
    assert_tables_equal(served(settings), expected)
    live.tidy()
    live.close()
    assert_tables_equal(bars(settings), expected)
    assert_tables_equal(served(settings), expected)


def test_bars_that_come_while_others_are_settled_stay_in_sight(
    live: LiveDuckDB, settings: Settings, expected: pa.Table
) -> None:
    applied = [come(live, settings, KNOWN, KNOWN + 1)]
    for position in range(KNOWN + 1, KNOWN + 30):
        live.between_batches(nothing_waits=True)  # settles what there is, beside the next ones
        applied.append(come(live, settings, position, position + 1))
        assert_shown(settings, expected, position + 1)
    settle(live, applied[-1])
    assert_shown(settings, expected, KNOWN + 30)


def test_late_bars_are_seen_once_they_are_settled(live: LiveDuckDB, settings: Settings, expected: pa.Table) -> None:
    later = come(live, settings, KNOWN + 2, KNOWN + 4)
    assert later.visible_at is not None
    late = come(live, settings, KNOWN, KNOWN + 2)
    assert late.visible_at is None
    newer = come(live, settings, KNOWN + 4, KNOWN + 5)
    settle(live, newer)
    assert late.visible_at is not None
    assert_shown(settings, expected, KNOWN + 5)
    come(live, settings, KNOWN + 5, KNOWN + 6)
    assert_shown(settings, expected, KNOWN + 6)


def test_bars_that_come_again_change_nothing(live: LiveDuckDB, settings: Settings, expected: pa.Table) -> None:
    settle(live, come(live, settings, KNOWN, KNOWN + 3))
    again = come(live, settings, KNOWN + 1, KNOWN + 4)
    assert_shown(settings, expected, KNOWN + 4)
    settle(live, again)
    assert_shown(settings, expected, KNOWN + 4)


def test_a_series_of_which_too_little_is_known_is_seen_once_it_is_settled(tmp_path: Path) -> None:
    settings = home(tmp_path / "new", symbols=",".join(SYMBOLS), interval="15m")
    with LiveDuckDB(settings) as live:
        for position in range(2):
            applied = come(live, settings, position, position + 1)
            assert applied.visible_at is None
            settle(live, applied)
            count = run_query(settings, "select count(*), max(open_time) from market_data_unified").rows
            assert count == [(2 * position + 2, at(position))]
            assert applied.visible_at is not None


def test_publishing_history_keeps_what_is_shown_while_a_run_streams(
    live: LiveDuckDB, settings: Settings, expected: pa.Table
) -> None:
    turn = streaming_turn(settings)
    assert turn.take(0)
    with FileLock(settings.warehouse_path.with_suffix(".queue"), is_singleton=False):
        until(live, lambda: not live._warehouse._turn.is_taken)
    come(live, settings, KNOWN, KNOWN + 2)
    publish(settings)
    assert_shown(settings, expected, KNOWN + 2)
    come(live, settings, KNOWN + 2, KNOWN + 3)
    assert_shown(settings, expected, KNOWN + 3)
    turn.give_back()
    publish(settings)
    assert_shown(settings, expected, KNOWN)


def test_what_a_build_has_published_meanwhile_is_not_shown_again(
    live: LiveDuckDB, settings: Settings, expected: pa.Table
) -> None:
    with FileLock(settings.warehouse_path.with_suffix(".queue"), is_singleton=False):
        until(live, lambda: not live._warehouse._turn.is_taken)
    StreamZone(settings.raw_root).write(streamed(between(KLINES, KNOWN, KNOWN + 2)))
    compute_tables(settings)
    publish(settings)
    come(live, settings, KNOWN, KNOWN + 3)
    assert_shown(settings, expected, KNOWN + 3)


def test_the_warehouse_is_given_away_only_when_it_is_wanted(live: LiveDuckDB, settings: Settings) -> None:
    settle(live, come(live, settings, KNOWN, KNOWN + 1))
    for _ in range(3):
        live.between_batches(nothing_waits=True)
    assert live._warehouse._turn.is_taken
    with FileLock(settings.warehouse_path.with_suffix(".queue"), is_singleton=False):
        until(live, lambda: not live._warehouse._turn.is_taken)


def test_what_could_not_be_settled_is_told(live: LiveDuckDB, settings: Settings) -> None:
    come(live, settings, KNOWN, KNOWN + 1)
    with (
        mock.patch.object(dbt, "run_live", side_effect=BuildFailed("It fails.", "")),
        pytest.raises(BuildFailed, match="It fails"),
    ):
        until(live, lambda: False)
