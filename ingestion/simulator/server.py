"""The simulated exchange as a server: its faces in one Starlette application, on loopback unless told otherwise."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestion.binance.archive import SIMULATED_HEADER
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
    """A uvicorn server that tells the port it got."""

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


def make_server(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Server:
    return Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, lifespan="off"))


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """Run the exchange in a thread on a free loopback port; yields its address."""
    server = make_server(app)
    thread = threading.Thread(target=server.run, name="simulated-exchange", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("The simulated exchange did not start.")
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        thread.join()
