"""A front of an object store: it counts requests, and answers some of them itself, or loses the answer."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Front:
    """`asked` has method and path of each request; those of `refuse` that it gives a status are answered with that and
    `message`, and so are the next `lose` of the others, but only after they have been carried out."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.address = ""
        self.asked: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None
        self.lose = 0
        self.message = "no"

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((method, path))
        status = self.refuse(method, path)
        if status is None:
            passed = self._pass_on(method, path, headers, body)
            if not self.lose:
                return passed
            self.lose -= 1
            status = 503
        error = json.dumps({"error": {"code": status, "message": self.message}}).encode()
        return status, {"content-type": "application/json"}, error

    def _pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            kept = ("content-type", "content-range", "x-goog-generation")
            return (
                reply.status,
                {name: value for name, value in reply.getheaders() if name.lower() in kept},
                reply.read(),
            )
        finally:
            connection.close()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait 40 ms for an acknowledgement

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            passed = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "range")}
            status, headers, content = front.answer(self.command, self.path, passed, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def front(target: int) -> Iterator[Front]:
    """A front of the store that listens on `target`."""
    found = Front(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.daemon_threads = True
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
