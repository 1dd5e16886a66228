"""History arrives for days that came by stream: it replaces their rows, and what differed is told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from support.homes import bars, build_all, compute_bars, compute_tables, copied, home, put, random_walk
from support.oracles import assert_tables_equal
from support.streamed import streamed

from ingestion.klines import Series
from ingestion.microbatch import stretches
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.live import LiveWarehouse
from warehouse.serving import publish, run_query

SERIES = Series("BTCUSDT", "15m")
START = datetime(2024, 7, 1, tzinfo=UTC)
TRUTH = random_walk(SERIES, START, 96 * 8)
# History has five days; the stream two and a half more.
KNOWN, STREAMED = 96 * 5, 96 * 7 + 48
DIFFERENT = (KNOWN + 3, KNOWN + 100)
ONLY_HISTORY, ONLY_STREAM = KNOWN + 7, KNOWN + 50


def at(position: int) -> datetime:
    return START + timedelta(minutes=15 * position)


def rows(positions: list[int], *, wrong: tuple[int, ...] = ()) -> pa.Table:
    found = TRUTH.take(positions).to_pylist()
    for row in found:
        if (row["open_time"] - START) // timedelta(minutes=15) in wrong:
            row["trades"] += 1
            row["close"] = row["low"]
    return pa.Table.from_pylist(found, schema=TRUTH.schema)


def by_history(settings: Settings, last: int) -> None:
    positions = [position for position in range(last) if position != ONLY_STREAM]
    put(settings, SERIES, rows(positions), covered_until=at(last))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home in which the stream has told of the last days, wrongly in a few places."""
    found = home(tmp_path_factory.mktemp("told"), symbols="BTCUSDT", interval="15m")
    put(found, SERIES, rows(list(range(KNOWN))), covered_until=at(KNOWN))
    build_all(found)
    publish(found)
    told = streamed(rows([p for p in range(KNOWN, STREAMED) if p != ONLY_HISTORY], wrong=DIFFERENT))
    with LiveWarehouse(found) as live:
        StreamZone(found.raw_root).write(told)
        for stretch in stretches(told):
            live.apply(stretch)
    return found


@pytest.fixture
def settings(template: Settings, tmp_path: Path) -> Settings:
    found = copied(template, tmp_path / "home")
    publish(found)
    return found


def test_history_replaces_the_rows_and_the_indicators_after_them(settings: Settings, tmp_path: Path) -> None:
    by_history(settings, 96 * 7)
    compute_tables(settings)
    expected = home(tmp_path / "expected", symbols="BTCUSDT", interval="15m")
    put(expected, SERIES, rows(list(range(STREAMED))), covered_until=at(STREAMED))
    compute_bars(expected)
    indicators = [name for name in bars(expected).column_names if name not in ("source", "ingested_at")]
    assert_tables_equal(bars(settings).select(indicators), bars(expected).select(indicators))


def test_exactly_what_differed_is_told(settings: Settings) -> None:
    by_history(settings, 96 * 7)
    compute_tables(settings)
    publish(settings)
    told = run_query(
        settings, "select open_time, field, kept_source, other_source from klines_reconciliation order by all"
    ).rows
    changed = [
        (at(position), field, "archive_monthly", "stream") for position in DIFFERENT for field in ("close", "trades")
    ]
    assert told == sorted([*changed, (at(ONLY_STREAM), "bar", "stream", "archive_monthly")])


def test_the_days_that_history_owns_are_dropped_but_for_bars_that_it_does_not_have(settings: Settings) -> None:
    by_history(settings, 96 * 7)
    compute_tables(settings)
    zone = StreamZone(settings.raw_root)
    left = {file.day: zone.read(file)["open_time"].to_pylist() for file in zone.files()}
    assert left == {
        at(ONLY_STREAM).date(): [at(ONLY_STREAM)],
        at(96 * 7).date(): [at(position) for position in range(96 * 7, STREAMED)],
    }


def test_a_day_that_history_has_in_part_stays(settings: Settings) -> None:
    by_history(settings, KNOWN + 40)
    compute_tables(settings)
    assert len(StreamZone(settings.raw_root).files()) == 3
    sources = {
        row["open_time"]: row["source"]
        for row in bars(settings, f"\"interval\" = '15m' and open_time >= '{at(KNOWN)}'").to_pylist()
    }
    assert (sources[at(KNOWN + 39)], sources[at(KNOWN + 40)]) == ("archive_monthly", "stream")


def test_doing_it_again_changes_nothing(settings: Settings) -> None:
    by_history(settings, 96 * 7)
    build_all(settings)
    once = bars(settings)
    compute_tables(settings)
    assert bars(settings).equals(once)
