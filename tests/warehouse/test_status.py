"""Status and measures of a home."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from support.homes import compute_tables, home, put, random_walk
from support.streamed import messages, streamed

from ingestion.bus.open import open_bus
from ingestion.bus.port import DEAD_LETTERS, KLINES, Message
from ingestion.klines import Month, Series
from ingestion.messages import encode
from ingestion.stream_zone import StreamZone
from warehouse.engine import connect
from warehouse.measure import bars_by_month, gaps, latest_bars, newest_closes
from warehouse.serving import publish
from warehouse.status import BusStatus, LiveStatus, status

START = datetime(2024, 1, 31, tzinfo=UTC)
SERIES = Series("BTCUSDT", "1h")


def test_status_tells_rows_extent_and_sources_of_each_layer(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 48))
    compute_tables(settings)
    publish(settings)
    found = {(series.layer, series.interval): series for series in status(settings).series}
    raw, served = found["raw", "1h"], found["serving", "1h"]
    assert raw.sources == ("archive_monthly",)
    for series in (raw, served):
        assert (series.rows, series.files, series.first_open_time) == (48, 2, START)
        assert series.last_close_time == START + timedelta(hours=48, milliseconds=-1)
    assert {interval for layer, interval in found if layer == "serving"} == {"1h", "4h", "1d"}


def test_status_of_an_empty_home_is_empty(tmp_path: Path) -> None:
    found = status(home(tmp_path))
    assert (found.environment, found.series, found.live, found.bus, found.quarantined) == (None, (), (), None, ())
    assert not (tmp_path / "bus").exists()


def test_status_tells_what_came_live_of_each_series(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT,ETHUSDT", interval="1h")
    zone = StreamZone(settings.raw_root)
    btc, eth = (streamed(random_walk(Series(symbol, "1h"), START, 30)) for symbol in ("BTCUSDT", "ETHUSDT"))
    zone.write(pa.concat_tables([btc.slice(0, 6), eth.slice(0, 6)]))
    zone.write(btc.slice(5, 25))  # over midnight, and one bar again
    closed = START + timedelta(hours=30, milliseconds=-1)
    assert status(settings).live == (
        LiveStatus("BTCUSDT", "1h", 30, 3, closed, closed),
        LiveStatus("ETHUSDT", "1h", 6, 1, START + timedelta(hours=6, milliseconds=-1), closed - timedelta(hours=24)),
    )


def test_status_tells_what_waits_on_the_bus_and_what_is_dead(tmp_path: Path) -> None:
    settings = home(tmp_path)
    with open_bus(settings) as bus:
        bus.publish(KLINES, [encode(one) for one in messages(random_walk(SERIES, START, 2))])
        bus.publish(DEAD_LETTERS, [Message(b"{")])
    found = status(settings).bus
    assert found is not None
    assert (found.waiting, found.dead_letters, found.problem) == (2, 1, None)
    assert found.waiting_since is not None


def test_status_names_a_bus_that_cannot_be_read_and_tells_the_rest(tmp_path: Path) -> None:
    settings = home(tmp_path)
    settings.bus_path.parent.mkdir()
    settings.bus_path.write_bytes(b"this is no queue" * 1000)
    found = status(settings)
    assert isinstance(found.bus, BusStatus)
    assert str(settings.bus_path) in (found.bus.problem or "")


def test_a_series_is_measured_in_its_newest_bar_gaps_and_months(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h")
    put(settings, SERIES, random_walk(SERIES, START, 48, missing=[5, 6, 30]))
    compute_tables(settings)
    with connect(settings) as connection:
        assert newest_closes(connection, "1h") == {"BTCUSDT": START + timedelta(hours=48, milliseconds=-1)}
        assert [(gap.first_missing_open_time, gap.missing_bars, gap.verdict) for gap in gaps(connection)] == [
            (START + timedelta(hours=5), 2, "missing"),
            (START + timedelta(hours=30), 1, "missing"),
        ]
        rows = bars_by_month(connection, START, START + timedelta(days=2))
        assert rows.keys() == {Month(2024, 1), Month(2024, 2)}
        newest = latest_bars(connection, "BTCUSDT", "1h", START + timedelta(days=1), count=3)
        assert newest["open_time"].to_pylist() == [START + timedelta(hours=hour) for hour in (21, 22, 23)]
