"""Raw zones with chosen content, and looking into them from beside."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fsspec
import pyarrow as pa

from ingestion.grid import Window
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA, Month, Series
from ingestion.provenance import Provenance, SourceFile
from tests.support.object_store import BUCKET

BTC, ETH = Series("BTCUSDT", "1h"), Series("ETHUSDT", "1h")
JULY, AUGUST = Month(2024, 7), Month(2024, 8)
FETCHED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
URL = "https://data.binance.vision/data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-07.zip"
FILE = SourceFile("archive_monthly", URL, "ab" * 32, 3, 123, FETCHED, JULY.start, JULY.end, duplicates=1)
HOLE = Window(JULY.start + timedelta(hours=3), JULY.end)
PROVENANCE = Provenance((FILE,), 3, ("archive_monthly",), JULY.end, (HOLE,), (FILE,), off_grid=2)


def bars(count: int = 3, value: str = "1.5", series: Series = BTC, month: Month = JULY) -> pa.Table:
    opens = [month.start + timedelta(hours=hour) for hour in range(count)]
    closes = [start + timedelta(hours=1, microseconds=-1) for start in opens]
    constants = {"symbol": series.symbol, "interval": series.interval, "source": "archive_monthly"}
    constants |= {"ingested_at": FETCHED} | dict.fromkeys(DECIMAL_COLUMNS, Decimal(value))
    columns = {name: [constant] * count for name, constant in constants.items()}
    columns |= {"open_time": opens, "close_time": closes, "trades": list(range(count))}
    return pa.table(columns, schema=KLINE_SCHEMA)


def empty_root() -> str:
    """A root in the test's object store that nobody else has."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}/raw"


def _options(url: str) -> dict[str, Any]:
    return {"token": "anon", "use_listings_cache": False} if url.startswith("gs://") else {}


def opened(url: str, mode: str = "rb") -> Any:
    """A file of a zone, by the path that others read it by."""
    return fsspec.open(url, mode, **_options(url))


def all_files(root: str) -> list[str]:
    fs, path = fsspec.core.url_to_fs(root, **_options(root))
    return [found.rsplit("/", 1)[-1] for found in fs.find(path)]


def remove(url: str) -> None:
    """A file of a zone goes, by hand."""
    fs, path = fsspec.core.url_to_fs(url, **_options(url))
    fs.rm(path)


def in_threads(count: int, task: Callable[[int], None]) -> None:
    """Run a task so many times at once; it is given its number."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        task(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
