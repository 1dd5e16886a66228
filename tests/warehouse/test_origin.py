"""Where a bar came from: by history, live, or by both, before and after history has taken over."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from support.homes import home, put, random_walk
from support.streamed import streamed

from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.retirement import retire
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.origin import origin

SERIES = Series("BTCUSDT", "1h")
START = datetime(2025, 3, 1, tzinfo=UTC)
BARS = random_walk(SERIES, START, 48)
BAR = START + timedelta(hours=5)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path, symbols="BTCUSDT,ETHUSDT", interval="1h")


def told(source: str, first: int = 0, last: int = 24, **changed: object) -> pa.Table:
    """Bars as they came live; `changed` are fields of BAR."""
    rows = streamed(BARS.slice(first, last - first), source).to_pylist()
    for row in rows:
        if row["open_time"] == BAR:
            row |= changed
    return pa.Table.from_pylist(rows, schema=BARS.schema)


def come(settings: Settings, rows: pa.Table) -> str:
    """The file that these rows came to lie in."""
    (file,) = StreamZone(settings.raw_root).write(rows)
    return file.path


def test_a_bar_that_only_came_live_names_its_file_and_when_it_was_received(settings: Settings) -> None:
    others = come(settings, streamed(random_walk(Series("ETHUSDT", "1h"), START, 24)))
    path = come(settings, told("stream"))
    found = origin(settings, SERIES, BAR)
    (part,) = found.stream
    received = BAR + timedelta(hours=1, milliseconds=-1)
    assert (part.source, part.file, part.bars, part.counting) == ("stream", path, 1, 1)
    assert (part.first_received_at, part.last_received_at) == (received, received)
    assert path != others
    assert ([row["source"] for row in found.raw], found.answers, found.disagreements) == (["stream"], [], [])


def test_of_stream_and_rest_the_bar_by_rest_counts_and_what_the_stream_said_is_told(settings: Settings) -> None:
    come(settings, told("stream", trades=7))
    come(settings, told("rest", 4, 7))
    found = origin(settings, SERIES, BAR)
    assert {part.source: part.counting for part in found.stream} == {"stream": 0, "rest": 1}
    (row,) = found.disagreements
    assert (row["field"], row["kept_source"], row["other_source"], row["other_value"]) == (
        *("trades", "rest", "stream"),
        "7",
    )


def test_a_batch_that_came_twice_counts_once(settings: Settings) -> None:
    come(settings, told("stream"))
    come(settings, told("stream", 3, 9))
    found = origin(settings, SERIES, BAR)
    assert sorted(part.counting for part in found.stream) == [0, 1]
    assert (len(found.raw), found.disagreements) == (1, [])


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_the_archives_bar_counts_and_what_the_stream_said_is_told_also_when_it_is_gone(
    settings: Settings, is_taken_over: bool
) -> None:
    come(settings, told("stream", trades=7))
    put(settings, SERIES, BARS)
    zone = RawZone(settings.raw_root)
    if is_taken_over:
        retire(zone, StreamZone(settings.raw_root), [Month(2025, 3)])
    found = origin(settings, SERIES, BAR)
    assert [part.counting for part in found.stream] == ([] if is_taken_over else [0])
    assert [(row["source"], row["trades"]) for row in found.raw] == [("archive_monthly", 5)]
    assert [answer.source for answer in found.answers] == ["archive_monthly"]
    (row,) = found.disagreements
    assert (row["kept_source"], row["kept_value"], row["other_source"], row["other_value"]) == (
        *("archive_monthly", "5"),
        *("stream", "7"),
    )


def test_a_derived_bar_counts_what_came_each_way(settings: Settings) -> None:
    put(settings, SERIES, BARS.slice(0, 6), covered_until=BAR + timedelta(hours=1))
    come(settings, told("stream", 4, 24))
    found = origin(settings, Series("BTCUSDT", "1d"), START)
    (part,) = found.stream
    assert (part.bars, part.counting, len(found.raw), len(found.answers)) == (20, 18, 24, 1)
