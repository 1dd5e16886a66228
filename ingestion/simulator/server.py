"""The simulated exchange as a server: its faces in one Starlette application, on loopback unless told otherwise."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from queue import Queue

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ingestion.errors import UsageError
from ingestion.simulator.archive import ArchiveFace, market_files
from ingestion.simulator.clock import clock_of
from ingestion.simulator.faults import NO_FAULTS, Faults
from ingestion.simulator.gate import Gate, own_routes
from ingestion.simulator.limits import Limits
from ingestion.simulator.listings import LISTINGS, more_listings
from ingestion.simulator.market import Market
from ingestion.simulator.outages import Outage
from ingestion.simulator.recorded import recordings
from ingestion.simulator.rest import MarketSource, RestFace, Source
from ingestion.simulator.stream import StreamFace
from ingestion.simulator.stream_limits import EXCHANGE_LIMITS, StreamLimits
from ingestion.simulator.trouble import Trouble
from ingestion.simulator.truth import Truth


def build_app(
    seed: int = 1,
    data: Path | None = None,
    *,
    faults: Faults = NO_FAULTS,
    now: datetime | Callable[[], datetime] | None = None,
    outages: Sequence[Outage] = (),
    more_symbols: int = 0,
    limits: StreamLimits = EXCHANGE_LIMITS,
    truth: Path | None = None,
) -> Gate:
    """The exchange's faces over one truth: the market of `seed` with its `outages`, or the recordings in `data`.

    `now` is the exchange's clock, or an instant at which it stands still; by default it is the machine's. The market
    lists `more_symbols` named SIM001USDT and so on. What closed on the stream, which recordings do not have, is noted
    in `truth`. Raises UsageError for a folder without recordings, and for what recordings cannot do.
    """
    clock = clock_of(now)
    trouble = Trouble(faults, seed)
    source: Source
    stream = None
    if data is None:
        market = Market(seed, outages, LISTINGS | more_listings(more_symbols))
        files, source, name = market_files(market, clock, trouble), MarketSource(market), market.name
        stream = StreamFace(market, clock, trouble, limits, Truth(truth))
    elif outages or faults.archive_differs or faults.late_monthly:
        raise UsageError(
            "Recordings have no outages and no archive_differs or late_monthly but their own.", "Leave --data out."
        )
    elif more_symbols or truth:
        raise UsageError("Recordings have their own symbols and no stream.", "Leave --data out.")
    else:
        files, source = recordings(data)
        name = f"files of {data.resolve().name}"
    rest = RestFace(source, Limits(trouble, clock), clock, faults.weight_limit)
    routes = [*ArchiveFace(files, trouble).routes(), *rest.routes(), *own_routes(trouble)]
    if stream:
        routes += stream.routes()
    return Gate(Starlette(routes=routes), name, trouble, stream)


class Server(uvicorn.Server):
    """A uvicorn server that tells its address when it is ready, and carries the exchange's stream with it."""

    def __init__(self, app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
        self._stream = app.stream if isinstance(app, Gate) else None
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws=self._stream.protocol() if self._stream else "none",
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            if self._stream:
                self._stream.start()
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self._stream:
            await self._stream.stop()


def serve(app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Port 0 takes a free one; `on_ready` hears the address."""
    Server(app, host, port, on_ready).run()


@contextmanager
def running(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Run the exchange in a thread on a loopback port, by default a free one; yields its address.

    An exchange may be run again when it has stopped: it has gone on trading in between.
    """
    ready: Queue[str | None] = Queue()
    server = Server(app, "127.0.0.1", port, ready.put)

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
