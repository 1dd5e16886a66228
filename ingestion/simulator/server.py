"""The simulated exchange as a server: its faces in one Starlette application, on loopback unless told otherwise."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ingestion.errors import UsageError
from ingestion.simulator.archive import ArchiveFace, market_files
from ingestion.simulator.faults import NO_FAULTS, Faults
from ingestion.simulator.gate import Gate, own_routes
from ingestion.simulator.limits import Limits
from ingestion.simulator.market import Market
from ingestion.simulator.outages import Outage
from ingestion.simulator.recorded import recordings
from ingestion.simulator.rest import MarketSource, RestFace, Source
from ingestion.simulator.trouble import Trouble


def build_app(
    seed: int = 1,
    data: Path | None = None,
    *,
    faults: Faults = NO_FAULTS,
    now: datetime | Callable[[], datetime] | None = None,
    outages: Sequence[Outage] = (),
) -> ASGIApp:
    """The exchange's faces over one truth: the market of `seed` with its `outages`, or the recordings in `data`.

    `now` is the exchange's clock, or an instant at which it stands still; by default it is the machine's. Raises
    UsageError for a folder without recordings, and for what recordings cannot do.
    """
    clock = _clock(now)
    trouble = Trouble(faults, seed)
    source: Source
    if data is None:
        market = Market(seed, outages)
        files, source, name = market_files(market, clock, trouble), MarketSource(market), market.name
    elif outages or faults.archive_differs or faults.late_monthly:
        raise UsageError(
            "Recordings have no outages and no archive_differs or late_monthly but their own.", "Leave --data out."
        )
    else:
        files, source = recordings(data)
        name = f"files of {data.resolve().name}"
    rest = RestFace(source, Limits(trouble, clock), clock, faults.weight_limit)
    routes = [*ArchiveFace(files, trouble).routes(), *rest.routes(), *own_routes(trouble)]
    return Gate(Starlette(routes=routes), name, trouble)


def _clock(now: datetime | Callable[[], datetime] | None) -> Callable[[], datetime]:
    if now is None:
        return lambda: datetime.now(UTC)
    if isinstance(now, datetime):
        instant = now
        return lambda: instant
    return now


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
