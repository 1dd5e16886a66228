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

import numpy as np
import pyarrow as pa
from pyarrow import csv
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingestion.errors import UsageError
from ingestion.klines import Month, Series
from ingestion.simulator.market import Bars, Market, instant_of, micros
from ingestion.simulator.text import decimals
from ingestion.simulator.trouble import Trouble

_PATH = re.compile(
    r"data/spot/(?P<kind>monthly|daily)/klines/(?P<symbol>[^/]+)/(?P<interval>[^/]+)/"
    r"(?P=symbol)-(?P=interval)-(?P<period>\d{4}-\d\d(?:-\d\d)?)\.zip"
)
_MICROSECONDS_FROM = datetime(2025, 1, 1, tzinfo=UTC)
_NO_DAILY = ("3d", "1w", "1M")
_PAGE = "<html><head><title>data.binance.vision</title></head><body>The service is being maintained.</body></html>"

Files = Callable[[str], bytes | None]


class ArchiveFace:
    """`/data/...` answered by `files`, with the checksum of each zip beside it and the faults that files can have."""

    def __init__(self, files: Files, trouble: Trouble) -> None:
        self._files, self._trouble = files, trouble

    def routes(self) -> list[Route]:
        return [Route("/data/{rest:path}", self._serve)]

    def _serve(self, request: Request) -> Response:
        path = request.url.path.lstrip("/")
        is_checksum = path.endswith(".CHECKSUM")
        zip_path = path.removesuffix(".CHECKSUM")
        content = self._files(zip_path)
        if content is None or self._is_missing(zip_path):
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        return (self._serve_checksum if is_checksum else self._serve_zip)(zip_path, content)

    def _is_missing(self, path: str) -> bool:
        missing = "/monthly/" in path and self._trouble.strikes("missing_monthly", _name(path))
        if missing:
            self._trouble.fire("missing_monthly")
        return missing

    def _serve_zip(self, path: str, content: bytes) -> Response:
        fetches = self._trouble.attempt(f"fetches of {path}")
        if self._is_ill("access_denied", path, fetches):
            return _error(403, "AccessDenied", "Access Denied")
        if self._is_ill("html_200", path, fetches):
            return Response(_PAGE, media_type="text/html")
        # A short file and its checksum are of one kind: both go by how often the checksum has been asked for.
        if self._is_ill("short_monthly", path, self._trouble.attempts(f"fetches of {path}.CHECKSUM") + 1):
            content = _shortened(content)
        if self._is_ill("truncated_zip", path, fetches):
            content = content[: len(content) // 2]
        return Response(content, media_type="application/zip", headers={"server": "AmazonS3"})

    def _serve_checksum(self, path: str, content: bytes) -> Response:
        fetches = self._trouble.attempt(f"fetches of {path}.CHECKSUM")
        written = self._files(f"{path}.CHECKSUM")
        if self._is_ill("short_monthly", path, fetches):
            content, written = _shortened(content), None
        if self._is_ill("stale_checksum", path, fetches):
            content, written = content + b"as it was before", None
        line = f"{hashlib.sha256(content).hexdigest()}  {_name(path)}\n".encode()
        return Response(written or line, media_type="application/zip", headers={"server": "AmazonS3"})

    def _is_ill(self, fault: str, path: str, fetches: int) -> bool:
        meant = "/monthly/" in path or fault != "short_monthly"
        ill = meant and self._trouble.is_ill(fault, _name(path), fetches)
        if ill:
            self._trouble.fire(fault)
        return ill


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _error(status: int, code: str, message: str) -> Response:
    """An error as the host writes it."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        "<RequestId>SIMULATED</RequestId><HostId>SIMULATED</HostId></Error>"
    )
    return Response(body, status, media_type="application/xml")


def _shortened(content: bytes) -> bytes:
    """The same zip with the first third of its rows."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = archive.namelist()[0]
        lines = archive.read(name).splitlines(keepends=True)
    return _zip(name, b"".join(lines[: max(len(lines) // 3, 1)]))


def market_files(market: Market, now: Callable[[], datetime], trouble: Trouble | None = None) -> Files:
    """Synthetic files: a month is there when it and its last bar are over, a day when it is over."""

    # A client asks for a zip and then for its checksum; 64 five-minute months are about 25 MB.
    @functools.lru_cache(maxsize=64)
    def build(series: Series, kind: str, period: str) -> tuple[datetime, bytes] | None:
        """From when the file is there, and its content."""
        bars = market.bars(series, Month.parse(period))
        if bars is None or (kind == "daily" and series.interval in _NO_DAILY):
            return None
        if kind == "daily":
            bars = bars.between(*_day(period))
        if not len(bars):
            return None
        if trouble:
            bars = trouble.differing(series, market.listings[series.symbol], bars)
        name = f"{series.symbol}-{series.interval.replace('M', 'mo')}-{period}.csv"
        return instant_of(int(bars.close_time[-1]) + 1), _zip(name, _csv(bars))

    late = timedelta(days=trouble.faults.late_monthly) if trouble else timedelta(0)

    def read(path: str) -> bytes | None:
        match = _PATH.fullmatch(path)
        if match is None or (match["kind"] == "daily") != (len(match["period"]) == 10):
            return None
        try:
            series = Series(match["symbol"], match["interval"].replace("1mo", "1M"))
            monthly = match["kind"] == "monthly"
            end = Month.parse(match["period"]).end + late if monthly else _day(match["period"])[1]
        except (UsageError, ValueError, OverflowError):
            return None
        built = build(series, match["kind"], match["period"]) if end <= now() else None
        return built[1] if built and built[0] <= now() else None

    return read


def _day(period: str) -> tuple[datetime, datetime]:
    start = datetime.combine(date.fromisoformat(period), time(), UTC)
    return start, start + timedelta(days=1)


def _csv(bars: Bars) -> bytes:
    """Twelve columns without a header, times in the unit of their date, decimals with eight digits."""
    unit = np.where(bars.open_time < micros(_MICROSECONDS_FROM), 1000, 1)
    columns = [
        bars.open_time // unit,
        *(decimals(values) for values in (bars.open, bars.high, bars.low, bars.close, bars.volume)),
        bars.close_time // unit,
        decimals(bars.quote_volume),
        bars.trades,
        decimals(bars.taker_buy_base_volume),
        decimals(bars.taker_buy_quote_volume),
        np.zeros(len(bars), np.int64),
    ]
    sink = io.BytesIO()
    table = pa.table([pa.array(column) for column in columns], names=[str(i) for i in range(12)])
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return sink.getvalue()


def _zip(name: str, text: bytes) -> bytes:
    """A zip with one member, the same bytes for the same text."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))
        archive.writestr(info, text, zipfile.ZIP_DEFLATED, compresslevel=1)
    return sink.getvalue()
