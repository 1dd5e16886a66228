"""A simulated exchange that serves its streams on loopback, with a clock that the test moves, and clients of it."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import websocket

from ingestion.simulator.server import build_app, running

START = datetime(2025, 6, 15, 12, 0, 30, tzinfo=UTC)
PATIENCE = 20.0


class HandClock:
    """Stands still until it is moved. Safe between threads."""

    def __init__(self, start: datetime = START) -> None:
        self._now, self._lock = start, threading.Lock()

    def __call__(self) -> datetime:
        with self._lock:
            return self._now

    def go(self, **length: float) -> datetime:
        """Move on by a timedelta given in parts, such as `minutes=1`."""
        with self._lock:
            self._now += timedelta(**length)
            return self._now


class Client(websocket.WebSocket):
    """A client that waits for what it expects."""

    def ask(self, method: str, *params: object, number: object = 1) -> Any:
        """The answer to a control message; frames before it are passed over."""
        self.send(json.dumps({"method": method, "params": list(params), "id": number}))
        return self.until(lambda frame: "id" in frame or "code" in frame)

    def until(self, meant: Callable[[Any], bool]) -> Any:
        """The first JSON frame that is meant."""
        while True:
            frame = json.loads(self.recv())
            if meant(frame):
                return frame

    def closing(self, stream: str | None = None) -> Any:
        """The `k` of the next closing frame, of any stream or of one, in either framing."""
        frame = self.until(lambda frame: is_closing(frame) and stream in (None, frame.get("stream")))
        return frame.get("data", frame)["k"]

    def end(self) -> int | None:
        """The close code with which the connection ends; None when it is cut off."""
        while True:
            try:
                opcode, data = self.recv_data()
            except (ConnectionError, websocket.WebSocketConnectionClosedException):
                return None
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")


def is_closing(frame: Any) -> bool:
    kline = isinstance(frame, dict) and frame.get("data", frame).get("k")
    return isinstance(kline, dict) and kline.get("x") is True


class Served:
    """The exchange as a test sees it."""

    def __init__(self, address: str, clock: HandClock, truth: Path, clients: ExitStack) -> None:
        self.address, self.clock, self._truth, self._clients = address, clock, truth, clients

    def connect(self, path: str, **options: Any) -> Client:
        client = websocket.create_connection(
            self.address.replace("http", "ws") + path, timeout=PATIENCE, class_=Client, **options
        )
        self._clients.callback(client.shutdown)
        return client

    def get(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(self.address + path, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.loads(response.read())

    def fired(self) -> dict[str, int]:
        return {name: count for name, count in self.get("/simulator/fired")["fired"].items() if count}

    def truth(self) -> list[dict[str, Any]]:
        written = self._truth.read_text()
        return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]

    def truth_when(self, bars: int) -> list[dict[str, Any]]:
        """The truth as soon as it has that many bars."""
        return awaited(lambda: lines if len(lines := self.truth()) >= bars else None)

    def fired_when(self, fault: str) -> int:
        """How often a fault fired, as soon as it has."""
        return awaited(lambda: self.fired().get(fault))


def awaited(look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError("What was awaited did not come.")


@contextmanager
def served(truth: Path, clock: HandClock | None = None, **options: Any) -> Iterator[Served]:
    """An exchange whose clock the test moves, by default from START on."""
    clock = clock or HandClock()
    with ExitStack() as clients, running(build_app(**{"now": clock, "truth": truth} | options)) as address:
        yield Served(address, clock, truth, clients)
