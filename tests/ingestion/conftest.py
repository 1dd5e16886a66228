"""A host on loopback that answers from a script, retries without waits, the same examples on every machine."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import hypothesis
import pytest
import stamina

from ingestion.binance.archive import Archive
from ingestion.binance.http import Http, Traffic
from ingestion.settings import load_settings

hypothesis.settings.register_profile("klinehouse", max_examples=60, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("klinehouse")


@dataclass(frozen=True)
class Reply:
    """One answer. `gate` holds it back until as many requests have come; `missing` bytes are announced but not sent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: threading.Barrier | None = None
    missing: int = 0


class ArchiveHost:
    """Answers each path with its replies in turn, the last one from then on, and every other path with 404.

    REST answers from `klines`, rows of the exchange by symbol and interval; other symbols are unknown to it. `blocked`
    is answered instead of everything that REST would say.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.headed: list[str] = []
        self.asked_rest: list[str] = []
        self.klines: dict[tuple[str, str], list[list[Any]]] = {}
        self.time = datetime(2024, 10, 15, 12, tzinfo=UTC)
        self.blocked: Reply | None = None
        self.rest_headers: dict[str, str] = {}
        self.has_head = True
        self.on_answer: Callable[[str], None] = lambda path: None
        self._replies: dict[str, list[Reply]] = {}
        self._lock = threading.Lock()

    def script(self, path: str, *replies: bytes | int | Reply) -> None:
        """Answer `path` with bodies, statuses or whole replies."""
        whole = {bytes: lambda body: Reply(body=body), int: lambda status: Reply(status), Reply: lambda reply: reply}
        self._replies[path] = [whole[type(reply)](reply) for reply in replies]

    def publish(self, path: str, text: bytes) -> bytes:
        """Put a file there as the archive does, with its checksum beside it; returns the zip."""
        name = path.rsplit("/", 1)[-1]
        content = self.zipped({name.replace(".zip", ".csv"): text})
        self.script(path, content)
        self.script(f"{path}.CHECKSUM", self.checksum(content, name))
        return content

    def answer(self, path: str) -> Reply:
        with self._lock:
            if path.startswith("api/v3/"):
                return self._answer_rest(path.removeprefix("api/v3/"))
            self.asked.append(path)
            self.on_answer(path)
            replies = self._replies.get(path, [Reply(404)])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def _answer_rest(self, path: str) -> Reply:
        self.asked_rest.append(path)
        if self.blocked:
            return self.blocked
        name, _, query = path.partition("?")
        if name == "time":
            millis = round(self.time.timestamp() * 1000)
            return Reply(body=json.dumps({"serverTime": millis}).encode(), headers=self.rest_headers)
        asked = dict(parse_qsl(query))
        rows = self.klines.get((asked["symbol"], asked["interval"]))
        if rows is None:
            return Reply(400, b'{"code":-1121,"msg":"Invalid symbol."}')
        first, last = int(asked["startTime"]), int(asked.get("endTime", 10**14))
        inside = sorted(row for row in rows if first <= row[0] <= last)
        return Reply(body=json.dumps(inside[: int(asked["limit"])]).encode(), headers=self.rest_headers)

    def head(self, path: str) -> Reply:
        """What a GET would answer now; it is not counted as an answer."""
        with self._lock:
            self.headed.append(path)
            return self._replies.get(path, [Reply(404)])[0] if self.has_head else Reply(501)

    @staticmethod
    def reply(status: int = 200, body: bytes = b"", **rest: object) -> Reply:
        return Reply(status, body, **rest)

    @staticmethod
    def zipped(members: Mapping[str, bytes]) -> bytes:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                # One date for all: the same content is the same file, whenever it is made.
                archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
        return sink.getvalue()

    @staticmethod
    def checksum(content: bytes, name: str) -> bytes:
        return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def _handler(host: ArchiveHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait 40 ms for an acknowledgement

        def do_HEAD(self) -> None:
            reply = host.head(self.path.lstrip("/"))
            self._send_head(reply)

        def do_GET(self) -> None:
            reply = host.answer(self.path.lstrip("/"))
            if reply.gate:
                reply.gate.wait(timeout=60)
            self._send_head(reply)
            self.wfile.write(reply.body)
            self.close_connection = self.close_connection or reply.missing > 0

        def _send_head(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body) + reply.missing))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def host() -> Iterator[ArchiveHost]:
    host = ArchiveHost()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(host))
    server.daemon_threads = True
    host.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield host
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def archive(host: ArchiveHost) -> Iterator[Archive]:
    """A client of `host` that tries three times and takes files of up to 1 MB."""
    settings = load_settings(archive_url=host.url, http_attempts=3, max_file_mb=1)
    http = Http(settings, "KLINEHOUSE_ARCHIVE_URL", Traffic())
    yield Archive(settings, http)
    http.close()


@pytest.fixture(autouse=True)
def retries_do_not_wait() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
