from pathlib import Path
from typing import cast

import pytest

from ingestion.errors import ConfigurationError
from ingestion.klines import Month
from ingestion.raw_zone import RawZone
from warehouse.bigquery import raw_source
from warehouse.bigquery.client import BigQuery


def test_a_raw_zone_that_bigquery_cannot_load_from_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    nobody = cast("BigQuery", None)
    with pytest.raises(ConfigurationError, match="KLINEHOUSE_RAW_URL"):
        raw_source.prepare(nobody, RawZone(str(tmp_path)), "5m", [Month(2024, 7)])
