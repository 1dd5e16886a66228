from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import cast
from unittest.mock import create_autospec

import pyarrow as pa
import pytest

from ingestion.errors import ConfigurationError
from ingestion.grid import Window
from ingestion.klines import Month
from ingestion.raw_zone import RawZone
from ingestion.stream_zone import StreamFile, StreamZone
from warehouse.bigquery import raw_source
from warehouse.bigquery.client import BigQuery


def test_streamed_bars_are_loaded_no_more_files_at_a_time_than_a_job_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    days = [StreamFile(date(2024, 7, day), f"{day}.parquet", f"gs://bucket/{day}.parquet") for day in range(1, 6)]
    loaded: list[list[str]] = []

    def load_files(warehouse: BigQuery, files: Sequence[tuple[str, str]], schema: pa.Schema) -> str:
        loaded.append([address for address, _ in files])
        return f"load_{len(loaded)}"

    monkeypatch.setattr(raw_source, "FILES_PER_LOAD", 2)
    monkeypatch.setattr(raw_source, "load_files", load_files)
    warehouse, zone = create_autospec(BigQuery, instance=True), create_autospec(StreamZone, instance=True)
    zone.files.return_value = days
    raw_source._load_stream(warehouse, zone, Window(days[0].window.start, days[-1].window.end))
    assert [len(files) for files in loaded] == [2, 2, 1]
    assert [address for files in loaded for address in files] == [file.path for file in days]
    inserts = [call.args[0] for call in warehouse.run.call_args_list]
    assert [f"load_{number} as landed" in insert for number, insert in enumerate(inserts, 1)] == [True] * 3


def test_a_raw_zone_that_bigquery_cannot_load_from_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    nobody = cast("BigQuery", None)
    with pytest.raises(ConfigurationError, match="KLINEHOUSE_RAW_URL"):
        raw_source.prepare(nobody, RawZone(str(tmp_path)), "5m", [Month(2024, 7)])
