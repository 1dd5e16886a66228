"""The simulated exchange as a server: its faces in one Starlette application, on loopback unless told otherwise."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestion.binance.http import SIMULATED_HEADER
from ingestion.simulator.archive import archive_route, folder_files, market_files
from ingestion.simulator.market import Market


class _Marked:
    """Middleware: every answer says that it is simulated, and by what."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app, self._name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[SIMULATED_HEADER] = self._name
            await send(message)

        await self._app(scope, receive, marked)


def build_app(seed: int = 1, data: Path | None = None) -> ASGIApp:
    """The exchange's faces over one truth: the market of `seed`, or the files in `data`."""
    if data is None:
        market = Market(seed)
        files, name = market_files(market, lambda: datetime.now(UTC)), market.name
    else:
        files, name = folder_files(data), f"files of {data.resolve().name}"
    return _Marked(Starlette(routes=[archive_route(files)]), name)


class Server(uvicorn.Server):
    """A uvicorn server that tells its address when it is ready."""

    def __init__(self, app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, lifespan="off")
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://{host}:{port}")


def serve(app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Port 0 takes a free one; `on_ready` hears the address."""
    Server(app, host, port, on_ready).run()


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Run the exchange in a thread on a free loopback port; yields its address."""
    ready: Queue[str | None] = Queue()
    server = Server(app, "127.0.0.1", 0, ready.put)

    def run() -> None:
        try:
            server.run()
        finally:
            ready.put(None)

    thread = threading.Thread(target=run, name="simulated-exchange", daemon=True)
    thread.start()
    address = ready.get()
    if address is None:
        raise RuntimeError("The simulated exchange did not start.")
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join()
