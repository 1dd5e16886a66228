"""Homes filled with chosen klines, written to the raw zone as landing would."""

import gzip
import json
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.grid import Window
from ingestion.history.plan import find_holes
from ingestion.klines import DECIMAL_COLUMNS, INTERVAL_MICROS, KLINE_SCHEMA, Month, Series, month_window
from ingestion.provenance import Provenance, SourceFile
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings, load_settings
from warehouse.build import build, prepared, require_window
from warehouse.dbt import Window as RunWindow
from warehouse.dbt import build_args, run
from warehouse.engine import connect

INGESTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def home(path: Path, **settings: Any) -> Settings:
    return load_settings(home=path, **settings)


def random_walk(
    series: Series, start: datetime, bars: int, seed: int = 1, missing: Iterable[int] = (), price: float = 100.0
) -> pa.Table:
    """Klines of a random walk on the series' grid, without the bars at the positions in `missing`."""
    rng = np.random.default_rng(seed)
    length = timedelta(microseconds=INTERVAL_MICROS[series.interval] or 0)
    closes = np.round(price * np.exp(np.cumsum(rng.normal(0, 0.004, bars))), 2)
    opens = np.concatenate(([price], closes[:-1]))
    highs = np.round(np.maximum(opens, closes) + rng.random(bars), 2)
    lows = np.round(np.maximum(np.minimum(opens, closes) - rng.random(bars), 0.01), 2)
    volumes = np.round(rng.lognormal(2, 1, bars), 5)
    gone = set(missing)
    rows = []
    for i in range(bars):
        if i in gone:
            continue
        opened = start + i * length
        amounts = (opens[i], highs[i], lows[i], closes[i], volumes[i], volumes[i] * opens[i])
        takers = (volumes[i] / 2, volumes[i] * opens[i] / 2)
        rows.append(_row(series, opened, opened + length - timedelta(milliseconds=1), amounts, int(i % 50), takers))
    return pa.Table.from_pylist(rows, schema=KLINE_SCHEMA)


def _row(
    series: Series,
    open_time: datetime,
    close_time: datetime,
    amounts: Sequence[float],
    trades: int,
    takers: Sequence[float],
    source: str = "archive_monthly",
) -> dict[str, Any]:
    values = [Decimal(f"{value:.8f}") for value in (*amounts, *takers)]
    names = [*DECIMAL_COLUMNS[:6], *DECIMAL_COLUMNS[6:]]
    return {
        "symbol": series.symbol,
        "interval": series.interval,
        "open_time": open_time,
        "close_time": close_time,
        **dict(zip(names, values, strict=True)),
        "trades": trades,
        "source": source,
        "ingested_at": INGESTED_AT,
    }


def rest_klines(path: Path, series: Series) -> pa.Table:
    """Recorded bodies of the exchange's REST klines (all `*.json.gz` of a folder) as rows of the raw zone."""
    files = sorted(path.glob("*.json.gz"))
    klines = [kline for file in files for kline in json.loads(gzip.decompress(file.read_bytes()))]
    rows = [
        {
            "symbol": series.symbol,
            "interval": series.interval,
            "open_time": EPOCH + timedelta(milliseconds=kline[0]),
            "close_time": EPOCH + timedelta(milliseconds=kline[6]),
            **dict(zip(DECIMAL_COLUMNS[:5], map(Decimal, kline[1:6]), strict=True)),
            "quote_volume": Decimal(kline[7]),
            "trades": kline[8],
            "taker_buy_base_volume": Decimal(kline[9]),
            "taker_buy_quote_volume": Decimal(kline[10]),
            "source": "rest",
            "ingested_at": INGESTED_AT,
        }
        for kline in klines
    ]
    return pa.Table.from_pylist(rows, schema=KLINE_SCHEMA)


def put(settings: Settings, series: Series, klines: pa.Table, covered_until: datetime | None = None) -> None:
    """Write klines to the raw zone, month by month; by default they cover their months whole."""
    zone = RawZone(settings.raw_root)
    zone.claim(zone.environment() or Environment.of(None))
    times = klines["open_time"]
    extent = pc.min_max(times).as_py()
    for month in month_window((extent["min"], extent["max"] + timedelta(microseconds=1))):
        inside = pc.and_(pc.greater_equal(times, month.start), pc.less(times, month.end))
        rows = klines.filter(inside)
        covered = min(month.end, covered_until) if covered_until else month.end
        if rows.num_rows:
            zone.write_history(series, month, rows, provenance(series, month, rows, covered))


def provenance(series: Series, month: Month, rows: pa.Table, covered_until: datetime) -> Provenance:
    """As if one monthly file had brought the rows; REST was not asked for its holes."""
    window = Window(month.start, covered_until)
    url = f"http://exchange.test/{series.symbol}-{series.interval}-{month}.zip"
    file = SourceFile("archive_monthly", url, "0" * 64, rows.num_rows, 0, INGESTED_AT, window.start, window.end)
    times = np.array([(at - EPOCH) // timedelta(microseconds=1) for at in rows["open_time"].to_pylist()])
    missing = find_holes(series, times, window)
    return Provenance((file,), rows.num_rows, ("archive_monthly",), covered_until, missing)


def build_all(settings: Settings, *, full_refresh: bool = False) -> None:
    build(settings, require_window(settings), full_refresh=full_refresh)


def build_window(settings: Settings, start: datetime, end: datetime) -> None:
    build(settings, RunWindow.around(start, end))


def compute_tables(settings: Settings, start: datetime | None = None, end: datetime | None = None) -> None:
    """All tables, without testing them: half the time of a build."""
    _compute(settings, require_window(settings, start, end), None)


def compute_bars(settings: Settings, start: datetime | None = None, end: datetime | None = None) -> None:
    """Bars and indicators alone, without tests and the other tables: a third of the time of a build."""
    _compute(settings, require_window(settings, start, end), "stg_klines market_data_unified")


def compute_bars_and_view(settings: Settings) -> None:
    """What streamed bars need."""
    _compute(settings, require_window(settings), "stg_klines market_data_unified market_data_live")


def _compute(settings: Settings, window: RunWindow, select: str | None) -> None:
    args = build_args(window, settings.interval, select=select)
    with prepared(settings, window) as succeeded:
        run(settings, ["--no-write-json", *args, "--resource-type", "model", "--resource-type", "seed"])
        succeeded()


def copied(settings: Settings, path: Path) -> Settings:
    """Another home with the same raw zone and warehouse, and nothing published."""
    for folder in ("raw", "warehouse"):
        shutil.copytree(settings.home / folder, path / folder)
    return settings.model_copy(update={"home": path})


def bars(settings: Settings, where: str = "true") -> pa.Table:
    """Rows of the main table, ordered by its key."""
    with connect(settings) as connection:
        return connection.sql(
            f"""select * from crypto_analytics.market_data_unified where {where}
            order by symbol, "interval", open_time"""
        ).to_arrow_table()
