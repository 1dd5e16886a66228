"""Client of the REST API: klines page by page, the exchange's clock, and what it trades.

The exchange counts the weight of requests per minute and address; this client stays under a budget, corrected by the
used weight that each answer tells, so that 429 does not come.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from ingestion.binance.http import Answer, Http, TooLarge
from ingestion.binance.wire import MalformedKlines, ParsedKlines, parse_rest_klines
from ingestion.errors import ExchangeRefused
from ingestion.grid import instant, micros
from ingestion.klines import Series
from ingestion.provenance import REST

MARKET_DATA_HOST = "https://data-api.binance.vision"

_PAGE = 1000
_KLINES_WEIGHT = 2
_EXCHANGE_INFO_WEIGHT = 20
_MILLISECOND = timedelta(milliseconds=1)
_MINUTE = 60.0

# "Unknown outcome", "disconnected", "too many requests", "timeout", "busy", "shutting down": these pass.
_PASSING_CODES = {-1000, -1001, -1003, -1006, -1007, -1008, -1015, -1016, -1034}
_UNKNOWN = {-1121: "The exchange knows no symbol {symbol}.", -1100: "The exchange takes {symbol} for no symbol."}


class UnknownSymbol(ExchangeRefused):
    """The exchange does not know the symbol, now or in its past."""

    kind = "unknown_symbol"


class MalformedAnswer(ExchangeRefused):
    """An answer that is not what the exchange documents."""

    kind = "malformed_answer"


@dataclass(frozen=True)
class RestKlines:
    """Closed bars of one window: `parsed` is None when the exchange has none there. `url` is without the times."""

    url: str
    sha256: str
    bytes: int
    fetched_at: datetime
    parsed: ParsedKlines | None


class WeightBudget:
    """Weight used in the running minute, ours and what the exchange tells; waits for the next minute when it is up."""

    def __init__(
        self, limit: int, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time
    ) -> None:
        self._limit, self._sleep, self._clock = limit, sleep, clock
        self._lock = threading.Lock()
        self._minute, self._used = 0, 0

    def take(self, weight: int) -> None:
        """Count `weight` before a request; waits until the minute has room for it."""
        while True:
            with self._lock:
                self._turn()
                if self._used + weight <= self._limit:
                    self._used += weight
                    return
                wait = (self._minute + 1) * _MINUTE - self._clock()
            self._sleep(wait)

    def correct(self, used: str | None) -> None:
        """Take over what the exchange says is used: others behind the same address count too."""
        if used is not None and used.isdigit():
            with self._lock:
                self._turn()
                self._used = max(self._used, int(used))

    def _turn(self) -> None:
        minute = int(self._clock() // _MINUTE)
        if minute != self._minute:
            self._minute, self._used = minute, 0


class Rest:
    """Reads from one REST host. Safe to share between threads."""

    def __init__(self, base: str, http: Http, budget: WeightBudget) -> None:
        self.base, self._http, self._budget = base, http, budget
        self.simulation: str | None = None

    def klines(self, series: Series, start: datetime, end: datetime, now: datetime | None = None) -> RestKlines:
        """The closed bars that open in `[start, end)`, paged without overlap.

        A bar is closed when `now`, by default the exchange's clock, has passed its close time; the open one is never
        returned.
        """
        digest, size = hashlib.sha256(), 0
        rows: list[list[Any]] = []
        for answer, page in self._pages(series, start, end):
            digest.update(answer.body)
            size += len(answer.body)
            rows += page
        fields = self._page_fields(series, start, end)
        fetched_at = datetime.now(UTC)
        try:
            parsed = parse_rest_klines(rows, series, (start, end), REST, fetched_at, now or self.now) if rows else None
        except MalformedKlines as error:
            url = self._url("klines", fields)
            raise MalformedAnswer(f"{url} answered with something else than klines: {error}.", _REPORT) from error
        url = self._url("klines", {name: fields[name] for name in ("symbol", "interval")})
        return RestKlines(url, digest.hexdigest(), size, fetched_at, parsed)

    def first_open_time(self, series: Series) -> datetime | None:
        """When the first bar of a series opened; None when it has none. (The exchange lists no such date.)"""
        fields = {"symbol": series.symbol, "interval": series.interval, "startTime": "0", "limit": "1"}
        rows = _rows(self._get("klines", fields, _KLINES_WEIGHT, series))
        return _instant(rows[0][0]) if rows else None

    @property
    def now(self) -> datetime:
        """The exchange's clock: asked once, then moved on by ours."""
        at, since = self._clock
        return at + timedelta(seconds=time.monotonic() - since)

    def server_time(self) -> datetime:
        """The exchange's clock, asked anew."""
        found = _json(self._get("time", {}, 1))
        return _instant(found.get("serverTime") if isinstance(found, dict) else None)

    @cached_property
    def _clock(self) -> tuple[datetime, float]:
        return self.server_time(), time.monotonic()

    def exchange_info(self) -> dict[str, Any]:
        """All symbols with status, assets and filters, as the exchange documents it."""
        found = _json(self._get("exchangeInfo", {}, _EXCHANGE_INFO_WEIGHT))
        if not isinstance(found, dict) or not isinstance(found.get("symbols"), list) or not found["symbols"]:
            raise MalformedAnswer(f"{self.base} answered exchangeInfo without symbols.", _REPORT)
        return found

    def _pages(self, series: Series, start: datetime, end: datetime) -> Iterator[tuple[Answer, list[list[Any]]]]:
        while start < end:
            answer = self._get("klines", self._page_fields(series, start, end), _KLINES_WEIGHT, series)
            rows = _rows(answer)
            yield answer, rows
            if len(rows) < _PAGE:
                return
            last = _instant(rows[-1][0])
            if last < max(start, _instant(rows[0][0])):
                raise MalformedAnswer(
                    f"{self.base} answered with bars that are not in order from {start} on, as asked for.", _REPORT
                )
            # Both ends of the range are inclusive: a page that began at the last bar would have it twice.
            start = last + _MILLISECOND

    def _page_fields(self, series: Series, start: datetime, end: datetime) -> dict[str, str]:
        return {
            "symbol": series.symbol,
            "interval": series.interval,
            "startTime": str(micros(start) // 1000),
            "endTime": str(micros(end) // 1000 - 1),
            "limit": str(_PAGE),
        }

    def _url(self, name: str, fields: dict[str, str]) -> str:
        query = "&".join(f"{key}={value}" for key, value in fields.items())
        return f"{self.base}/api/v3/{name}?{query}"

    def _get(self, name: str, fields: dict[str, str], weight: int, series: Series | None = None) -> Answer:
        self._budget.take(weight)
        try:
            answer = self._http.get(f"{self.base}/api/v3/{name}", fields, passes=_passes)
        except TooLarge as error:
            raise MalformedAnswer(f"{error}.", _REPORT) from error
        self._budget.correct(answer.headers.get("x-mbx-used-weight-1m"))
        self.simulation = answer.simulation
        if answer.status != 200:
            raise _refusal(self._url(name, fields), answer, series)
        return answer


_REPORT = "Check KLINEHOUSE_REST_URL; if it is the exchange's own host, its API has changed."


def _refusal(url: str, answer: Answer, series: Series | None) -> ExchangeRefused:
    code, message = _error(answer)
    if series is not None and code in _UNKNOWN and "symbol" in message:
        return UnknownSymbol(_UNKNOWN[code].format(symbol=series.symbol), "`klinehouse symbols` lists what it trades.")
    if code is None:
        return ExchangeRefused(f"{url} was refused with HTTP {answer.status}.", "Check KLINEHOUSE_REST_URL.")
    return ExchangeRefused(f"{url} was refused: {message} ({code}).", "The same request would be refused again.")


def _passes(answer: Answer) -> bool:
    return answer.status == 400 and _error(answer)[0] in _PASSING_CODES


def _error(answer: Answer) -> tuple[int | None, str]:
    try:
        found = json.loads(answer.body)
        return int(found["code"]), str(found["msg"])[:200]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None, ""


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:  # the second for a body of a million brackets
        raise MalformedAnswer(f"The exchange answered with {answer.body[:60]!r}, which is no JSON.", _REPORT) from error


def _rows(answer: Answer) -> list[Any]:
    rows = _json(answer)
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 12 for row in rows):
        raise MalformedAnswer(f"The exchange answered with {answer.body[:60]!r}, not with rows of klines.", _REPORT)
    return rows


def _instant(millis: object) -> datetime:
    if not isinstance(millis, int) or isinstance(millis, bool) or not 0 <= millis < 10**14:
        raise MalformedAnswer(
            f"The exchange answered with the time {str(millis)[:60]!r}, which is not in milliseconds.", _REPORT
        )
    return instant(millis * 1000)
