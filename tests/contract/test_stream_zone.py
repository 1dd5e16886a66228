"""The contract of the stream's part of the raw zone, on a local folder and on an object store."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from support.homes import random_walk
from support.raw_zones import all_files, in_threads
from support.streamed import streamed

from ingestion.grid import Window
from ingestion.klines import Series
from ingestion.stream_zone import StreamFile, StreamZone

BTC = Series("BTCUSDT", "1h")
START = datetime(2025, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BARS = streamed(random_walk(BTC, START, 8))


@pytest.fixture
def zone(root: str) -> StreamZone:
    return StreamZone(root)


def test_bars_lie_in_files_of_their_days(zone: StreamZone) -> None:
    rows = streamed(random_walk(BTC, START - HOUR, 3))
    yesterday, today = zone.write(rows)
    assert [file.day.isoformat() for file in (yesterday, today)] == ["2025-02-28", "2025-03-01"]
    assert zone.files() == [yesterday, today]
    assert zone.files(Window(START, START + HOUR)) == [today]
    assert pa.concat_tables([zone.read(yesterday), zone.read(today)]).equals(rows)


def test_a_batch_written_again_changes_nothing(root: str, zone: StreamZone) -> None:
    first = zone.write(BARS)
    version = zone._listed("klines/stream/date=*/*")
    assert StreamZone(root).write(BARS) == first
    assert zone.files() == first
    if root.startswith("gs://"):
        # Nor is the object replaced by one that is equal to it.
        assert zone._listed("klines/stream/date=*/*") == version


def test_a_batch_written_by_eight_at_once_is_one_file(root: str, zone: StreamZone) -> None:
    in_threads(8, lambda _: StreamZone(root).write(BARS))
    (file,) = zone.files()
    assert zone.read(file).equals(BARS)


def test_a_file_tells_from_when_to_when_it_has_bars(zone: StreamZone) -> None:
    (file,) = zone.write(BARS)
    assert zone.extents(file) == {BTC: Window(START, START + 8 * HOUR)}


def test_files_are_put_together_into_one(root: str, zone: StreamZone) -> None:
    files = [file for at in range(0, 8, 2) for file in zone.write(BARS.slice(at, 2))]
    (whole,) = zone.replace(files, BARS)
    assert zone.files() == [whole]
    assert len(all_files(root)) == 1
    assert zone.read(whole).equals(BARS)


def test_a_file_put_in_its_own_place_stays(zone: StreamZone) -> None:
    files = zone.write(BARS)
    assert zone.replace(files, BARS) == files == zone.files()


def test_files_may_be_dropped_by_two_at_once(root: str, zone: StreamZone) -> None:
    files = [file for at in range(8) for file in zone.write(BARS.slice(at, 1))]
    in_threads(2, lambda _: StreamZone(root).replace(files, BARS.slice(0, 0)))
    assert zone.files() == []


def test_files_put_together_meanwhile_are_looked_at_anew(zone: StreamZone) -> None:
    files = [file for at in range(0, 8, 2) for file in zone.write(BARS.slice(at, 2))]
    looked: list[StreamFile] = []

    def look(file: StreamFile) -> pa.Table:
        looked.append(file)
        if len(looked) == 2:
            zone.replace(files, BARS)
        return zone.read(file)

    found = zone.survey(look)
    assert pa.concat_tables(rows for _, rows in found).sort_by("open_time").equals(BARS)


def test_a_file_that_cannot_be_read_is_not_looked_at_for_ever(zone: StreamZone) -> None:
    zone.write(BARS)

    def look(file: StreamFile) -> None:
        raise FileNotFoundError(file.path)

    with pytest.raises(FileNotFoundError):
        zone.survey(look)
