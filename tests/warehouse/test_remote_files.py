"""The warehouse over a raw zone on an object store, as bars come by stream. It takes seconds: dbt runs eight times."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.homes import bars, compute_bars, home, put, random_walk
from support.object_store import EMULATOR, ObjectStore
from support.oracles import assert_tables_equal
from support.raw_zones import empty_root
from support.streamed import streamed

from ingestion.klines import Series
from ingestion.microbatch import stretches
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.build import build_changed
from warehouse.compare import compare_layers
from warehouse.live import LiveWarehouse
from warehouse.serving import publish

pytestmark = pytest.mark.bigquery

SERIES = Series("BTCUSDT", "1h")
START = datetime(2024, 6, 28, tzinfo=UTC)
KNOWN = START + timedelta(hours=48)
KLINES = random_walk(SERIES, START, 24 * 6)


@pytest.fixture
def settings(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """A home whose history ends at KNOWN, on an object store."""
    monkeypatch.setenv(EMULATOR, object_store.address)
    settings = home(tmp_path, raw_url=empty_root(), symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, KLINES.slice(0, 48), covered_until=KNOWN)
    build_changed(settings)
    publish(settings)
    return settings


def test_bars_by_stream_and_their_history_are_as_built_at_once(settings: Settings) -> None:
    with LiveWarehouse(settings) as live:
        for first in range(48, 144, 32):
            rows = streamed(KLINES.slice(first, 32))
            StreamZone(settings.raw_root).write(rows)
            for stretch in stretches(rows):
                live.apply(stretch)
        live.tidy()
    assert compare_layers(settings).differences == ()
    put(settings, SERIES, KLINES, covered_until=START + timedelta(hours=144))
    build_changed(settings)
    publish(settings)
    assert StreamZone(settings.raw_root).files() == []
    assert compare_layers(settings).differences == ()
    incremental = bars(settings)
    compute_bars(settings)
    assert_tables_equal(incremental, bars(settings))
