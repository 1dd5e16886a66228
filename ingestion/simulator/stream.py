"""The stream face: WebSocket connections to the kline streams, on the same port and over the same truth as the others.

Pings, pongs, the limit on messages and the limit on connects go by the machine's time whatever the speed of the
exchange's clock; the 24 hours that a connection may live and the 2 seconds between updates are exchange time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingestion.simulator.clock import ExchangeClock
from ingestion.simulator.connection import Connection, Refusal
from ingestion.simulator.feed import Feed
from ingestion.simulator.market import Market
from ingestion.simulator.stream_limits import StreamLimits
from ingestion.simulator.trouble import Trouble
from ingestion.simulator.truth import Truth


class StreamFace:
    """Accepts connections, tends them, and joins them to the feed. Lives in the server's event loop."""

    def __init__(
        self, market: Market, clock: ExchangeClock, trouble: Trouble, limits: StreamLimits, truth: Truth
    ) -> None:
        self.name, self.limits, self.shutdown_after = market.name, limits, trouble.faults.stream_shutdown
        self._clock, self._trouble, self._truth = clock, trouble, truth
        self._feed = Feed(market, clock, trouble, limits, truth)
        self._connections: set[Connection] = set()
        self._connects: deque[float] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    # --- what the server asks ----------------------------------------------------------------------------------

    def protocol(self) -> type[asyncio.Protocol]:
        """What the HTTP server makes of a connection that asks to be upgraded."""

        def make(*, server_state: Any, **rest: object) -> Connection:
            return Connection(self, server_state.connections)

        return cast("type[asyncio.Protocol]", make)

    def start(self) -> None:
        self._truth.open()
        self._tasks = [asyncio.create_task(self._feed.run()), asyncio.create_task(self._tend())]

    async def stop(self) -> None:
        """Raises what has ended a task before its time."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._truth.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def routes(self) -> list[Route]:
        """Where the stream is, and what a test does to it: cut all connections, or tell them of a shutdown."""
        return [
            Route("/simulator/stream", self._address),
            Route("/simulator/stream/drop", self._drop, methods=["POST"]),
            Route("/simulator/stream/shutdown", self._shutdown, methods=["POST"]),
        ]

    # --- what a connection asks --------------------------------------------------------------------------------

    def admit(self) -> None:
        """Count a handshake; raises Refusal. All callers count as one address, as they do behind one router."""
        trouble = self._trouble
        trouble.count_request("stream")
        instant = time.monotonic()
        while self._connects and instant - self._connects[0] > self.limits.connects_window:
            self._connects.popleft()
        self._connects.append(instant)
        if trouble.faults.blocked:
            trouble.fire("blocked")
            raise Refusal(trouble.faults.blocked, "Service unavailable from a restricted location\n")
        if len(self._connects) > self.limits.connects:
            trouble.fire("stream_429")
            raise Refusal(429, "Too many connections\n")
        if trouble.meets("stream_refused", str(trouble.attempt("stream"))):
            raise Refusal(503, "Service Unavailable\n")

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def gone(self, connection: Connection, why: str) -> None:
        self._connections.discard(connection)
        self._feed.leave(connection, list(connection.subscriptions.streams), why)

    def changed(self, connection: Connection, new: list[str], left: list[str]) -> None:
        self._feed.leave(connection, left, "unsubscribed")
        self._feed.follow(connection, new)

    def fire(self, fault: str) -> None:
        self._trouble.fire(fault)

    def exchange_micros(self) -> int:
        return self._clock.micros()

    # --- within ------------------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            for connection in list(self._connections):
                connection.tend()
            await asyncio.sleep(min(0.25, self.limits.ping_every / 4))

    async def _address(self, request: Request) -> Response:
        streams = sum(len(connection.subscriptions.streams) for connection in self._connections)
        return JSONResponse(
            {"url": f"ws://{request.url.netloc}", "connections": len(self._connections), "streams": streams}
        )

    async def _drop(self, request: Request) -> Response:
        return self._done(lambda connection: connection.drop("stream_drop"))

    async def _shutdown(self, request: Request) -> Response:
        return self._done(lambda connection: connection.announce_shutdown(self.limits.shutdown_lead))

    def _done(self, act: Callable[[Connection], None]) -> Response:
        connections = list(self._connections)
        for connection in connections:
            act(connection)
        return JSONResponse({"connections": len(connections)})
