"""What the collector tells over HTTP: /health, /metrics, /latest."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingestion.errors import ConfigurationError


class Reports(Protocol):
    """What the routes answer with."""

    def report(self) -> dict[str, Any]: ...

    def latest(self) -> list[dict[str, Any]]: ...


def build_app(
    reports: Callable[[], Reports | None], obstacle: Callable[[], str], registry: CollectorRegistry
) -> Starlette:
    """The routes; until there are `reports` the service is starting, and `obstacle` tells what it waits for."""

    async def health(request: Request) -> Response:
        found = reports()
        report = found.report() if found else {"status": "starting", "problems": [obstacle()]}
        return JSONResponse(report, 200 if report["status"] == "ok" else 503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def latest(request: Request) -> Response:
        found = reports()
        return JSONResponse(found.latest() if found else [])

    return Starlette(routes=[Route("/health", health), Route("/metrics", metrics), Route("/latest", latest)])


@contextmanager
def serving(app: Starlette, host: str, port: int) -> Iterator[str]:
    """Serve in a thread; yields the address. Raises ConfigurationError when it cannot be listened on."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}.",
            "Set KLINEHOUSE_COLLECTOR_HOST and KLINEHOUSE_COLLECTOR_PORT; another collector may be running.",
        ) from error
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=1.5)
        listener.close()
