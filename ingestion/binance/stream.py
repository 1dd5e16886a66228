"""Client of the kline streams: what a frame says, and a WebSocket that reads frames of bounded size.

A frame is raw or combined (`{"stream": ..., "data": ...}`); it is one state of a bar, a notice, or the answer to a
request. Anything else is a MalformedFrame: named, to be counted, and without effect on the frames after it.
"""

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import websocket
from websocket import ABNF

from ingestion.binance.bounded import BoundedWebSocket, TooMuch
from ingestion.binance.http import SIMULATED_HEADER
from ingestion.errors import UsageError
from ingestion.klines import INTERVAL_MICROS, Series, grid_micros
from ingestion.messages import KlineMessage

STREAM = "stream"
# Far above any frame of a kline (400 bytes); what is larger is none, and is not read to its end.
MAX_BYTES = 1 << 16
MAX_STREAMS = 1024
# The exchange takes 5 messages a second, pings and pongs included: two are left for those.
REQUESTS_PER_SECOND = 3
_STREAMS_PER_REQUEST = 200

_DECIMAL = re.compile(r"-?\d{1,20}(?:\.\d{1,8})?", re.ASCII)
_PRICES = {
    "open": "o",
    "high": "h",
    "low": "l",
    "close": "c",
    "volume": "v",
    "quote_volume": "q",
    "taker_buy_base_volume": "V",
    "taker_buy_quote_volume": "Q",
}
_LONGEST_BAR = 31 * 86_400_000_000


class MalformedFrame(ValueError):
    """A frame that is not what the exchange documents. `kind` is one of few words, for a counter."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class StreamLost(Exception):
    """The connection is gone, was refused, or broke the protocol. `kind` is one of few words, for a counter."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class KlineFrame:
    """One state of a bar; the last one is `closed`. Values as in KlineMessage."""

    series: Series
    open_time: int
    close_time: int
    prices: Mapping[str, str]
    trades: int
    event_time: int
    closed: bool

    def message(self, received_time: int) -> KlineMessage:
        """The bar as it travels over the bus; meant for a closed one."""
        return KlineMessage(
            symbol=self.series.symbol,
            interval=self.series.interval,
            open_time=self.open_time,
            close_time=self.close_time,
            **self.prices,
            trades=self.trades,
            source=STREAM,
            event_time=self.event_time,
            received_time=received_time,
        )


@dataclass(frozen=True)
class ServerShutdown:
    """The server will close this connection soon."""


@dataclass(frozen=True)
class Answer:
    """What came back for the request `id`; `error` is empty when it was done."""

    id: object
    error: str


def stream_name(series: Series) -> str:
    return f"{series.symbol.lower()}@kline_{series.interval}"


def subscriptions(series: Sequence[Series]) -> list[tuple[int, str]]:
    """The requests that subscribe to these series (at most MAX_STREAMS), each with its id."""
    names = [stream_name(one) for one in series]
    chunks = [names[first : first + _STREAMS_PER_REQUEST] for first in range(0, len(names), _STREAMS_PER_REQUEST)]
    return [
        (number, json.dumps({"method": "SUBSCRIBE", "params": chunk, "id": number}))
        for number, chunk in enumerate(chunks, 1)
    ]


def decode_frame(data: bytes) -> KlineFrame | ServerShutdown | Answer:
    """Raises MalformedFrame for whatever is neither a kline, nor a notice of shutdown, nor an answer."""
    if len(data) > MAX_BYTES:
        raise MalformedFrame("too_large", f"{len(data)} bytes, a frame has at most {MAX_BYTES}")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedFrame("no_json", f"no JSON ({error})") from error
    if not isinstance(found, dict):
        raise MalformedFrame("no_object", f"a {type(found).__name__}, not an object")
    stream = found.get("stream")
    event = found["data"] if "stream" in found and "data" in found else found
    if not isinstance(event, dict):
        raise MalformedFrame("no_object", f"its data are a {type(event).__name__}, not an object")
    if event.get("e") == "kline":
        return _kline(event, stream)
    if event.get("e") == "serverShutdown":
        return ServerShutdown()
    if "id" in found and ("result" in found or "code" in found or "error" in found):
        return _answer(found)
    raise MalformedFrame("unknown_event", f"an event {_shown(event.get('e'))}, which was not asked for")


def _answer(found: Mapping[str, Any]) -> Answer:
    details = found["error"] if isinstance(found.get("error"), dict) else found
    is_error = "code" in details
    return Answer(found["id"], f"{_shown(details.get('msg'))} ({_shown(details['code'])})" if is_error else "")


def _kline(event: Mapping[str, Any], stream: object) -> KlineFrame:
    bar = event.get("k")
    if not isinstance(bar, dict):
        raise MalformedFrame("no_kline", "a kline event without its bar")
    series = _series(event, bar, stream)
    event_time, opened, closed = _micros(event, "E"), _micros(bar, "t"), _micros(bar, "T")
    if type(bar.get("x")) is not bool:
        raise MalformedFrame("no_kline", f"x is {_shown(bar.get('x'))}, not true or false")
    _check_times(series, opened, closed, event_time, is_closed=bar["x"])
    if type(bar.get("n")) is not int or not 0 <= bar["n"] < 2**63:
        raise MalformedFrame("no_kline", f"n is {_shown(bar.get('n'))}, not a count of trades")
    return KlineFrame(
        series=series,
        open_time=opened,
        close_time=closed,
        prices={name: _decimal(bar, key) for name, key in _PRICES.items()},
        trades=bar["n"],
        event_time=event_time,
        closed=bar["x"],
    )


def _series(event: Mapping[str, Any], bar: Mapping[str, Any], stream: object) -> Series:
    try:
        series = Series(bar["s"], bar["i"])
    except (KeyError, TypeError, UsageError) as error:
        raise MalformedFrame("no_kline", f"of no series ({_shown(bar.get('s'))}, {_shown(bar.get('i'))})") from error
    if event.get("s") != series.symbol or stream not in (None, stream_name(series)):
        raise MalformedFrame("no_kline", f"of {series}, but sent as {_shown(event.get('s'))} on {_shown(stream)}")
    return series


def _micros(fields: Mapping[str, Any], name: str) -> int:
    """Milliseconds (13 digits) or microseconds (16 digits), as `wire` reads them."""
    value = fields.get(name)
    if type(value) is int and 10**12 <= value < 10**13:
        return value * 1000
    if type(value) is int and 10**15 <= value < 4_102_444_800_000_000:  # 2100, as the message has it
        return value
    raise MalformedFrame("no_kline", f"{name} is {_shown(value)}, no time in milliseconds or microseconds")


def _check_times(series: Series, opened: int, closed: int, event_time: int, *, is_closed: bool) -> None:
    longest = INTERVAL_MICROS[series.interval] or _LONGEST_BAR
    if not opened <= closed < opened + longest:
        raise MalformedFrame("no_kline", f"a bar from {opened} to {closed} at {series.interval}")
    if event_time < (closed if is_closed else opened):
        raise MalformedFrame("no_kline", f"sent at {event_time}, before what it tells of")
    grid = grid_micros(series.interval)
    if grid and opened % grid:
        raise MalformedFrame("off_grid", f"a bar that opens at {opened}, between two of {series.interval}")


def _decimal(bar: Mapping[str, Any], name: str) -> str:
    value = bar.get(name)
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise MalformedFrame("no_kline", f"{name} is {_shown(value)}, not a decimal string")
    return value


def _shown(value: object) -> str:
    return repr(value)[:80]


class StreamSocket:
    """One WebSocket to the exchange's combined streams, of one thread. Every failure is a StreamLost."""

    def __init__(self, base: str, timeout: float) -> None:
        self._socket = BoundedWebSocket(MAX_BYTES, timeout, _NO_DELAY)
        try:
            self._socket.open(f"{base}/stream")
        except _FAILURES as error:
            raise StreamLost("refused", f"{base} could not be reached: {_reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close(timeout=0)
        self._socket.shutdown()  # type: ignore[no-untyped-call]  # the library's

    @property
    def simulation(self) -> str | None:
        """What the server plays, when it is a simulated one."""
        headers = self._socket.getheaders() or {}
        found = headers.get(SIMULATED_HEADER)
        return found if isinstance(found, str) else None

    def send(self, text: str) -> None:
        with _lost():
            self._socket.send(text)

    def ping(self) -> None:
        with _lost():
            self._socket.ping()

    def receive(self, timeout: float) -> bytes | None:
        """What comes next: a message, or b"" for a ping or pong; None after `timeout` seconds of nothing.

        Pings are answered.
        """
        with _lost():
            self._socket.settimeout(timeout)
            try:
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
            except websocket.WebSocketTimeoutException:
                return None
        if opcode == ABNF.OPCODE_CLOSE:
            raise StreamLost("closed", f"closed by the server{_told(bytes(frame.data))}")
        return bytes(frame.data) if opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY) else b""


def _told(data: bytes) -> str:
    """What a close frame says: a code, and perhaps a text (at most 123 bytes)."""
    if len(data) < 2:
        return ""
    text = data[2:125].decode("utf-8", "replace")
    return f", code {int.from_bytes(data[:2])}" + (f": {text}" if text else "")


# Frames are small and wanted at once.
_NO_DELAY = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
_FAILURES = (websocket.WebSocketException, OSError, ValueError)


@contextmanager
def _lost() -> Iterator[None]:
    """Turns the failures of the socket into StreamLost."""
    try:
        yield
    except TooMuch as error:
        raise StreamLost("too_large", str(error)) from error
    except _FAILURES as error:
        raise StreamLost("dropped", _reason(error)) from error


def _reason(error: BaseException) -> str:
    return f"{error or type(error).__name__}"[:200]
