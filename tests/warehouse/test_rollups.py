"""Bars rolled up in the warehouse equal the bars that the exchange itself makes of the same trades."""

import csv
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.homes import INGESTED_AT, bars, compute_bars, home, put, rest_klines

from ingestion.klines import KLINE_SCHEMA, Series
from ingestion.settings import Settings

COLUMNS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "volume": "volume",
    "quote_asset_volume": "quote_volume",
    "taker_buy_base_asset_volume": "taker_buy_base_volume",
    "taker_buy_quote_asset_volume": "taker_buy_quote_volume",
}


def recorded(path: Path, series: Series) -> pa.Table:
    """The recorded 5m bars around the outage of 2023-03-24, comment lines and all."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = []
    for record in csv.DictReader(lines):
        opened, closed = (datetime.fromisoformat(record[name]).replace(tzinfo=UTC) for name in ("date", "close_time"))
        rows.append(
            {"symbol": series.symbol, "interval": "5m", "open_time": opened, "close_time": closed}
            | {name: Decimal(record[source]).quantize(Decimal("1e-8")) for source, name in COLUMNS.items()}
            | {"trades": int(record["number_of_trades"]), "source": "archive_daily", "ingested_at": INGESTED_AT}
        )
    return pa.Table.from_pylist(rows, schema=KLINE_SCHEMA)


@pytest.fixture(scope="module")
def around_an_outage(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Settings, pa.Table]:
    """A home with the recorded bars of both symbols, computed; and these bars."""
    settings = home(tmp_path_factory.mktemp("outage"), symbols="BTCUSDT,ETHUSDT")
    files = {series: next((shared_data / "outage-5m").glob(f"{series.symbol}-5m-*.csv")) for series in settings.series}
    klines = {series: recorded(path, series) for series, path in files.items()}
    for series, rows in klines.items():
        put(settings, series, rows)
    compute_bars(settings)
    return settings, pa.concat_tables(klines.values())


@pytest.mark.shared
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize(("interval", "count"), [("15m", 859), ("1h", 215)])
def test_bars_around_an_outage_equal_the_exchanges_own(
    around_an_outage: tuple[Settings, pa.Table], shared_data: Path, symbol: str, interval: str, count: int
) -> None:
    settings, klines = around_an_outage
    klines = klines.filter(pc.equal(klines["symbol"], symbol))
    first, last = min(klines["open_time"].to_pylist()), max(klines["open_time"].to_pylist())
    own = rest_klines(shared_data / "rest" / symbol / interval, Series(symbol, interval)).to_pylist()
    expected = {row["open_time"]: row for row in own if first <= row["open_time"] <= last}
    derived = {
        row["open_time"]: row
        for row in bars(settings, f"symbol = '{symbol}' and \"interval\" = '{interval}'").to_pylist()
    }

    assert len(derived) == count
    assert derived.keys() == expected.keys()
    for opened, row in derived.items():
        want = expected[opened]
        assert row["trades"] == want["trades"]
        # The recording cut close times to the second, and quote volumes to 15 digits.
        assert row["close_time"] == want["close_time"].replace(microsecond=0)
        for name in COLUMNS.values():
            assert row[name] == pytest.approx(float(want[name]), rel=1e-13, abs=1e-7), (opened, name)
