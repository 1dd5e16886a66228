"""Reading the stream's part of the raw zone while its files are put together."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from support.homes import random_walk
from support.streamed import streamed

from ingestion.klines import Series
from ingestion.stream_zone import StreamFile, StreamZone

BARS = streamed(random_walk(Series("BTCUSDT", "1h"), datetime(2025, 3, 1, tzinfo=UTC), 8))


def test_files_put_together_meanwhile_are_looked_at_anew(tmp_path: Path) -> None:
    zone = StreamZone(str(tmp_path))
    files = [file for at in range(0, 8, 2) for file in zone.write(BARS.slice(at, 2))]
    looked: list[StreamFile] = []

    def look(file: StreamFile) -> pa.Table:
        looked.append(file)
        if len(looked) == 2:
            zone.replace(files, BARS)
        return zone.read(file)

    ((file, rows),) = zone.survey(look)
    assert file not in files
    assert rows.equals(BARS)


def test_a_file_that_cannot_be_read_is_not_looked_at_for_ever(tmp_path: Path) -> None:
    zone = StreamZone(str(tmp_path))
    zone.write(BARS)

    def look(file: StreamFile) -> None:
        raise FileNotFoundError(file.path)

    with pytest.raises(FileNotFoundError):
        zone.survey(look)
