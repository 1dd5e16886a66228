"""The archive face: the archive host's layout, from the market's truth or from a folder of real files.

Zips are made when they are asked for and are the same bytes every time. Times are milliseconds before 2025 and
microseconds from then, as on the real host.
"""

import functools
import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingestion.errors import UsageError
from ingestion.klines import INTERVAL_MICROS, Month, Series
from ingestion.simulator.market import Bars, Ints, Market

_PATH = re.compile(
    r"data/spot/(?P<kind>monthly|daily)/klines/(?P<symbol>[^/]+)/(?P<interval>[^/]+)/"
    r"(?P=symbol)-(?P=interval)-(?P<period>\d{4}-\d\d(?:-\d\d)?)\.zip"
)
_MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)
_NO_DAILY = ("3d", "1w", "1M")
_NO_SUCH_KEY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.'
    "</Message><RequestId>SIMULATED</RequestId><HostId>SIMULATED</HostId></Error>"
)

Files = Callable[[str], bytes | None]


def archive_route(files: Files) -> Route:
    """The face itself: `/data/...` answered by `files`, with the checksum of each zip beside it."""

    def serve(request: Request) -> Response:
        path = request.url.path.lstrip("/")
        content = _checksum(files, path) if path.endswith(".CHECKSUM") else files(path)
        if content is None:
            return Response(_NO_SUCH_KEY, 404, media_type="application/xml")
        return Response(content, media_type="application/zip", headers={"server": "AmazonS3"})

    return Route("/data/{rest:path}", serve)


def _checksum(files: Files, path: str) -> bytes | None:
    written = files(path)
    if written is not None:
        return written
    content = files(path.removesuffix(".CHECKSUM"))
    if content is None:
        return None
    name = path.rsplit("/", 1)[-1].removesuffix(".CHECKSUM")
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def folder_files(folder: Path) -> Files:
    """Real files: a folder in the archive's own layout (`data/spot/...`), or one that holds it as `archive/`."""
    root = next((path for path in (folder, folder / "archive") if (path / "data").is_dir()), None)
    if root is None:
        raise UsageError(f"{folder} has no folder data/ in the archive's layout.", "Give the folder above data/spot.")
    root = root.resolve()

    def read(path: str) -> bytes | None:
        try:
            file = (root / path).resolve()
            return file.read_bytes() if file.is_relative_to(root) and file.is_file() else None
        except (OSError, ValueError):  # a name that no file can have
            return None

    return read


def market_files(market: Market, now: Callable[[], datetime]) -> Files:
    """Synthetic files: a month is there when it is over, a day when it is over."""

    # A client asks for a zip and then for its checksum; 64 five-minute months are about 25 MB.
    @functools.lru_cache(maxsize=64)
    def build(series: Series, kind: str, period: str) -> bytes | None:
        month = Month.parse(period)
        bars = market.bars(series, month)
        if bars is None or (kind == "daily" and series.interval in _NO_DAILY):
            return None
        if kind == "daily":
            start, end = _day(period)
            bars = bars.between(start, end)
        name = f"{series.symbol}-{series.interval.replace('M', 'mo')}-{period}.csv"
        return _zip(name, _csv(bars, series.interval)) if len(bars) else None

    def read(path: str) -> bytes | None:
        match = _PATH.fullmatch(path)
        if match is None or (match["kind"] == "daily") != (len(match["period"]) == 10):
            return None
        try:
            series = Series(match["symbol"], match["interval"].replace("1mo", "1M"))
            end = Month.parse(match["period"]).end if match["kind"] == "monthly" else _day(match["period"])[1]
        except (UsageError, ValueError, OverflowError):
            return None
        return build(series, match["kind"], match["period"]) if end <= now() else None

    return read


def _day(period: str) -> tuple[datetime, datetime]:
    start = datetime.combine(date.fromisoformat(period), time(), UTC)
    return start, start + timedelta(days=1)


def _csv(bars: Bars, interval: str) -> bytes:
    """Twelve columns without a header, times in the unit of their date, decimals with eight digits."""
    length = INTERVAL_MICROS[interval]
    if length is None:
        month = Month.containing(datetime.fromtimestamp(bars.open_time[0] / 1e6, UTC).date())
        length = (month.end - month.start) // timedelta(microseconds=1)
    switch = (_MICROSECONDS_FROM - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    unit = np.where(bars.open_time < switch, 1000, 1)
    columns = [
        bars.open_time // unit,
        *(_text(values) for values in (bars.open, bars.high, bars.low, bars.close, bars.volume)),
        (bars.open_time + length) // unit - 1,
        _text(bars.quote_volume),
        bars.trades,
        _text(bars.taker_buy_base_volume),
        _text(bars.taker_buy_quote_volume),
        np.zeros(len(bars), np.int64),
    ]
    sink = io.BytesIO()
    table = pa.table([pa.array(column) for column in columns], names=[str(i) for i in range(12)])
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return sink.getvalue()


def _text(values: Ints) -> pa.Array:
    """Units of 10^-8 as decimals with eight digits (inserting the point is five times faster than casting decimals)."""
    digits = pc.utf8_lpad(pc.cast(pa.array(values), pa.string()), width=9, padding="0")
    return pc.binary_replace_slice(digits, start=-8, stop=-8, replacement=".")


def _zip(name: str, text: bytes) -> bytes:
    """A zip with one member, the same bytes for the same text."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
        archive.writestr(info, text, zipfile.ZIP_DEFLATED, compresslevel=1)
    return sink.getvalue()
