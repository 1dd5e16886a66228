"""The REST face: klines, exchangeInfo, time and ping as the exchange answers them, limits and errors included."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingestion.klines import Month, Series, months_between
from ingestion.simulator.exchange_info import Entry, market_symbols, rate_limits, selected
from ingestion.simulator.limits import Limits
from ingestion.simulator.market import Bars, Ints, Market, instant_of, micros
from ingestion.simulator.parameters import (
    KlinesQuery,
    Refused,
    in_microseconds,
    klines_query,
    read_query,
    unknown_symbol,
)
from ingestion.simulator.text import decimals

_LONGEST_BAR = 31 * 86_400_000_000


@dataclass(frozen=True)
class Rows:
    """Klines as text: their times in microseconds, and the JSON that stands before and after the close time."""

    open_time: Ints
    close_time: Ints
    before: pa.Array
    after: pa.Array

    def part(self, first: int, last: int) -> "Rows":
        """The rows at positions `[first, last)`."""
        return Rows(**{name: column[first:last] for name, column in vars(self).items()})

    def body(self, *, micro: bool) -> bytes:
        """A JSON array of arrays, times in milliseconds or microseconds."""
        unit = 1 if micro else 1000
        opens, closes = (pc.cast(pa.array(times // unit), pa.string()) for times in (self.open_time, self.close_time))
        rows = pc.binary_join_element_wise(opens, self.before, closes, self.after, ",")
        return f"[[{'],['.join(rows.to_pylist())}]]".encode() if len(rows) else b"[]"


class Source(Protocol):
    """What the REST face serves: symbols, and rows of series in order of time."""

    def symbols(self, now: datetime) -> list[Entry]: ...

    def knows(self, symbol: str, now: datetime) -> bool: ...

    def rows(self, query: KlinesQuery, now: datetime) -> Rows: ...


class MarketSource:
    """The synthetic market. The newest bar is open, with what has traded in it so far."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def symbols(self, now: datetime) -> list[Entry]:
        return market_symbols(self._market.listings, now)

    def knows(self, symbol: str, now: datetime) -> bool:
        return symbol in self._market.listings and self._market.listings[symbol].first <= now

    def rows(self, query: KlinesQuery, now: datetime) -> Rows:
        parts: list[Bars] = []
        found = 0
        first, last = self._extent(query, now)
        for month in self._months(first, last, newest=query.newest):
            bars = self._market.bars_at(Series(query.symbol, query.interval), month, now)
            if bars is not None:
                begin, end = np.searchsorted(bars.open_time, [first, last + 1])
                parts.append(bars.part(int(begin), int(end)))
                found += len(parts[-1])
            if found >= query.limit:
                break
        if not found:
            return NO_ROWS
        bars = Bars.joined(parts[::-1] if query.newest else parts)
        return _text(bars.part(max(found - query.limit, 0), found) if query.newest else bars.part(0, query.limit))

    def _extent(self, query: KlinesQuery, now: datetime) -> tuple[int, int]:
        """The first and the last microsecond in which a bar of the answer may open."""
        listing = self._market.listings[query.symbol]
        first, last = micros(listing.first) - _LONGEST_BAR, micros(min(now, listing.end or now))
        return max(first, query.start or 0), last if query.end is None else min(last, query.end)

    def _months(self, first: int, last: int, *, newest: bool) -> list[Month]:
        if first > last:
            return []
        months = months_between(instant_of(first).date(), instant_of(last).date() + timedelta(days=1))
        return months[::-1] if newest else months


def _text(bars: Bars) -> Rows:
    prices = [decimals(values) for values in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    trades = pc.cast(pa.array(bars.trades), pa.string())
    quote, taker_base, taker_quote = (
        decimals(values) for values in (bars.quote_volume, bars.taker_buy_base_volume, bars.taker_buy_quote_volume)
    )
    # Quotes stand at the joints: numbers are text in the body, but times and the count of trades are not.
    before = pc.binary_join_element_wise('"', pc.binary_join_element_wise(*prices, '","'), '"', "")
    after = pc.binary_join_element_wise('"', quote, '",', trades, ',"', taker_base, '","', taker_quote, '","0"', "")
    return Rows(bars.open_time, bars.close_time, before, after)


NO_ROWS = Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), pa.array([], pa.string()), pa.array([], pa.string()))


class RestFace:
    """Routes of the exchange's public market data: every answer tells the used weight, errors have their codes."""

    def __init__(self, source: Source, limits: Limits, now: Callable[[], datetime], weight_limit: int) -> None:
        self._source, self._limits, self._now, self._weight_limit = source, limits, now, weight_limit

    def routes(self) -> list[Route]:
        return [
            self._route("klines", 2, self._klines),
            self._route("exchangeInfo", 20, self._exchange_info),
            self._route("time", 1, self._time),
            self._route("ping", 1, self._ping),
            Route("/api/{rest:path}", _not_found),
        ]

    def _route(self, name: str, weight: int, answer: Callable[[Request], Response]) -> Route:
        def limited(request: Request) -> Response:
            response = self._limits.take(weight)
            if response is None:
                try:
                    response = answer(request)
                except Refused as error:
                    response = JSONResponse({"code": error.code, "msg": error.message}, 400)
            response.headers.update(self._limits.headers())
            return response

        return Route(f"/api/v3/{name}", limited)

    def _klines(self, request: Request) -> Response:
        micro = in_microseconds(request)
        query = klines_query(request)
        now = self._now()
        if not self._source.knows(query.symbol, now):
            raise unknown_symbol()
        return _json(self._source.rows(query, now).body(micro=micro))

    def _exchange_info(self, request: Request) -> Response:
        now = self._now()
        body = {
            "timezone": "UTC",
            "serverTime": _server_time(now, micro=in_microseconds(request)),
            "rateLimits": rate_limits(self._weight_limit),
            "exchangeFilters": [],
            "symbols": selected(request, self._source.symbols(now)),
        }
        return _json(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())

    def _time(self, request: Request) -> Response:
        read_query(request, (), ())
        return JSONResponse({"serverTime": _server_time(self._now(), micro=in_microseconds(request))})

    def _ping(self, request: Request) -> Response:
        read_query(request, (), ())
        return JSONResponse({})


def _not_found(request: Request) -> Response:
    page = b"<html><body><h2>404 Not found</h2></body></html>"
    return Response(page if "text/html" in request.headers.get("accept", "") else b"", 404, media_type="text/html")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json;charset=UTF-8")


def _server_time(now: datetime, *, micro: bool) -> int:
    return micros(now) // (1 if micro else 1000)
