"""The way in: every request is counted and meets the faults that any request can meet, then goes to its face."""

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestion.binance.http import SIMULATED_HEADER
from ingestion.simulator.stream import StreamFace
from ingestion.simulator.trouble import Trouble

_OWN = "/simulator/"
_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
_RESTRICTED = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms. "
    "Please contact customer service if you believe you received this message in error."
)


class Gate:
    """Middleware. Says in every answer that it is simulated, and by what; the pages of its own meet no fault.

    The stream does not pass here: the server, which holds its connections, finds it as `stream`.
    """

    def __init__(self, app: ASGIApp, name: str, trouble: Trouble, stream: StreamFace | None = None) -> None:
        self._app, self._name, self._trouble = app, name, trouble
        self.stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[SIMULATED_HEADER] = self._name
            await send(message)

        answer: ASGIApp = self._app
        if scope["type"] == "http" and not scope["path"].startswith(_OWN):
            self._trouble.count_request(_kind(scope["path"]))
            answer = await self._met(scope) or self._app
        await answer(scope, receive, marked)

    async def _met(self, scope: Scope) -> Response | None:
        """The answer of a fault, if one is met."""
        trouble, faults = self._trouble, self._trouble.faults
        if faults.latency:
            trouble.fire("latency")
            await asyncio.sleep(faults.latency)
        if faults.blocked:
            trouble.fire("blocked")
            return _blocked(faults.blocked)
        if trouble.fails(f"{scope['path']}?{scope['query_string'].decode('latin-1')}"):
            return _unavailable(scope["path"])
        return None


def own_routes(trouble: Trouble) -> list[Route]:
    """What a test reads afterwards: the faults that fired with the bars planted, and the requests per kind."""

    def fired(request: Request) -> Response:
        return JSONResponse(trouble.fired())

    def requests(request: Request) -> Response:
        return JSONResponse(trouble.requests())

    return [Route(f"{_OWN}fired", fired), Route(f"{_OWN}requests", requests)]


def _kind(path: str) -> str:
    if path.startswith("/data/"):
        return {"zip": "zip", "CHECKSUM": "checksum"}.get(path.rsplit(".", 1)[-1], "other")
    if path.startswith("/api/v3/"):
        name = path.removeprefix("/api/v3/")
        return name if name in ("klines", "exchangeInfo", "time", "ping") else "other"
    return "other"


def _blocked(status: int) -> Response:
    if status == 451:
        return JSONResponse({"code": 0, "msg": _RESTRICTED}, status)
    return Response(_PAGE.format("403 Forbidden"), status, media_type="text/html")


def _unavailable(path: str) -> Response:
    if path.startswith("/api/"):
        message = "Internal error; unable to process your request. Please try again."
        return JSONResponse({"code": -1001, "msg": message}, 503)
    return Response(_PAGE.format("503 Service Unavailable"), 503, media_type="text/html")
