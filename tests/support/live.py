"""A scripted exchange for the collector: streams over a real WebSocket and REST, moved on bar by bar by the test."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from ingestion.bus.port import MICROBATCH, Bus, Message
from ingestion.collector.service import Service
from ingestion.errors import BusUnavailable
from ingestion.grid import instant, micros
from ingestion.klines import Series, grid_micros
from ingestion.messages import KlineMessage, decode

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

BTC = Series("BTCUSDT", "1m")
ETH = Series("ETHUSDT", "1m")
MINUTE = 60_000_000
START = micros(datetime(2025, 3, 1, 12, tzinfo=UTC))


def until(condition: Callable[[], Any], seconds: float = 20.0, every: float = 0.01) -> Any:
    """What `condition`, looked at `every` so many seconds, gives as soon as it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(every)
    return found


def values(open_time: int) -> dict[str, str]:
    """Prices and volumes of the bar at `open_time`: the same by stream and by REST."""
    price = 100 + open_time // MINUTE % 997
    names = (
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "taker_buy_base_volume",
        "taker_buy_quote_volume",
    )
    amounts = (price, price + 2, price - 1, price + 1, 10, 10 * price, 4, 4 * price)
    return {name: f"{amount}.00000000" for name, amount in zip(names, amounts, strict=True)}


def kline_event(series: Series, open_time: int, *, closed: bool, event_time: int | None = None) -> dict[str, Any]:
    length = grid_micros(series.interval) or 0
    close_time = open_time + length - 1000
    told = close_time + 5000 if closed else open_time + 2_000_000
    bar = values(open_time)
    return {
        "e": "kline",
        "E": (event_time or told) // 1000,
        "s": series.symbol,
        "k": {
            "t": open_time // 1000,
            "T": close_time // 1000,
            "s": series.symbol,
            "i": series.interval,
            "f": 1,
            "L": 7,
            "o": bar["open"],
            "c": bar["close"],
            "h": bar["high"],
            "l": bar["low"],
            "v": bar["volume"],
            "n": 7,
            "x": closed,
            "q": bar["quote_volume"],
            "V": bar["taker_buy_base_volume"],
            "Q": bar["taker_buy_quote_volume"],
            "B": "0",
        },
    }


def combined(series: Series, event: dict[str, Any]) -> str:
    return json.dumps({"stream": f"{series.symbol.lower()}@kline_{series.interval}", "data": event})


def rest_row(series: Series, open_time: int) -> list[Any]:
    bar = values(open_time)
    close_time = open_time + (grid_micros(series.interval) or 0) - 1000
    prices = [bar[name] for name in ("open", "high", "low", "close", "volume")]
    takers = [bar["taker_buy_base_volume"], bar["taker_buy_quote_volume"], "0"]
    return [open_time // 1000, *prices, close_time // 1000, bar["quote_volume"], 7, *takers]


class LiveExchange:
    """`now` is the exchange's clock in microseconds. Bars close when the test says so, on the stream and in REST."""

    def __init__(self, rest: "ArchiveHost", series: Sequence[Series] = (BTC,)) -> None:
        self.rest, self.series = rest, series
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.connections: set[ServerConnection] = set()
        self.connected = 0
        self.answers_subscriptions = True
        self._lock = threading.Lock()
        for one in series:
            rest.klines[one.symbol, one.interval] = []
        self.now = 0
        self.move(START + 10_000_000)

    def move(self, now: int) -> None:
        self.now = now
        self.rest.time = instant(now)

    def close(self, open_time: int, *series: Series, send: bool = True, in_rest: bool = True) -> None:
        """The bar at `open_time` closes."""
        length = grid_micros((series or self.series)[0].interval) or 0
        self.move(max(self.now, open_time + length + 5000))
        for one in series or self.series:
            if in_rest:
                self.rest.klines[one.symbol, one.interval].append(rest_row(one, open_time))
            if send:
                self.send(combined(one, kline_event(one, open_time, closed=True)))

    def trade(self, open_time: int, *series: Series) -> None:
        """The open bar changes."""
        self.move(max(self.now, open_time + 2_000_000))
        for one in series or self.series:
            self.send(combined(one, kline_event(one, open_time, closed=False)))

    def send(self, text: str | bytes) -> None:
        with self._lock:
            connections = list(self.connections)
        for connection in connections:
            with suppress(ConnectionClosed):
                connection.send(text)

    def drop(self) -> None:
        """Every connection is cut, without a word."""
        with self._lock:
            connections = list(self.connections)
            self.connections.clear()
        for connection in connections:
            connection.socket.shutdown(2)

    def await_subscribed(self, connections: int = 1) -> None:
        until(lambda: len(self.connections) >= connections)

    def handle(self, connection: ServerConnection) -> None:
        self.connected += 1
        with suppress(ConnectionClosed):
            for text in connection:
                request = json.loads(text)
                self.requests.append(request)
                if self.answers_subscriptions:
                    connection.send(json.dumps({"result": None, "id": request["id"]}))
                    with self._lock:
                        self.connections.add(connection)
        with self._lock:
            self.connections.discard(connection)


@contextmanager
def live(rest: "ArchiveHost", *series: Series) -> Iterator[LiveExchange]:
    exchange = LiveExchange(rest, series or (BTC,))
    server: Server = serve(exchange.handle, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2)
    port = server.socket.getsockname()[1]
    exchange.url = f"ws://127.0.0.1:{port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.drop()
        server.shutdown()
        thread.join(timeout=5)


class Bars:
    """What has been published to a bus, in order."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.all: list[KlineMessage] = []

    def read(self) -> list[KlineMessage]:
        received = self._bus.pull(MICROBATCH, max_messages=1000, max_bytes=1 << 24, wait=0)
        self.all += [decode(one.message) for one in received]
        self._bus.acknowledge(MICROBATCH, [one.ack_id for one in received])
        return self.all

    def opens(self, series: Series = BTC) -> list[int]:
        """Which bars of a series came, as minutes since START."""
        return [(bar.open_time - START) // MINUTE for bar in self.read() if bar.series == series]

    def sources(self, series: Series = BTC) -> list[str]:
        return [bar.source for bar in self.read() if bar.series == series]


class BrokenBus:
    """A bus that can be away."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.away = False

    def publish(self, topic: str, messages: Sequence[Message]) -> list[str]:
        if self.away:
            raise BusUnavailable("The bus is away.", "Wait.")
        return self._bus.publish(topic, messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """A running collector; yields its address."""
    ready: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            service.run(ready.append)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: ready or failed)
    if failed:
        raise failed[0]
    try:
        yield ready[0]
    finally:
        service.stop()
        thread.join(timeout=15)
        assert not thread.is_alive()
        if failed:
            raise failed[0]
