"""One connection: a WebSocket from its opening to its end, read by a thread of its own."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any

from ingestion.binance.stream import (
    REQUESTS_PER_SECOND,
    Answer,
    KlineFrame,
    MalformedFrame,
    ServerShutdown,
    StreamLost,
    StreamSocket,
    decode_frame,
    subscriptions,
)
from ingestion.collector.metrics import Metrics
from ingestion.klines import Series

_LOG = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 10.0
_LONGEST_READ = 0.2
# Seconds between two lines of log about the same kind of malformed frame.
_TELL_EVERY = 10.0


@dataclass(frozen=True)
class Heard:
    """A frame, and when it was received: microseconds since 1970 by the machine's clock."""

    frame: KlineFrame
    received_time: int


class Connection:
    """Puts what it hears into `events`. Seconds are real ones, on the monotonic clock.

    `ready` once all its streams are subscribed, `retiring` when the server has said that it will close, `closed` at
    the end; `simulation` must be what the server says of itself.
    """

    def __init__(
        self,
        base: str,
        series: Sequence[Series],
        events: "Queue[Any]",
        metrics: Metrics,
        *,
        stale_after: float,
        simulation: str | None = None,
    ) -> None:
        self._base, self._series, self._events, self._metrics = base, series, events, metrics
        self._stale_after, self._simulation = stale_after, simulation
        self._leaving = threading.Event()
        self._requests = subscriptions(series)
        self._unanswered = {number for number, _ in self._requests}
        self.opened_at = self._heard_at = self.data_at = time.monotonic()
        self._told_at: dict[str, float] = {}
        self.ready = self.retiring = self.closed = False
        self._thread = threading.Thread(target=self._run, name="connection", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Close it soon; frames may still come until `closed`."""
        self._leaving.set()

    def _run(self) -> None:
        try:
            with StreamSocket(self._base, _CONNECT_TIMEOUT) as socket:
                self._check(socket.simulation)
                self.opened_at = self._heard_at = self.data_at = time.monotonic()
                self._read(socket)
        except StreamLost as lost:
            if not self._leaving.is_set():
                self._metrics.errors.labels(f"connection_{lost.kind}").inc()
                _LOG.warning("connection lost", extra={"kind": lost.kind, "reason": str(lost), "url": self._base})
        finally:
            self.ready, self.closed = False, True

    def _check(self, simulation: str | None) -> None:
        if simulation != self._simulation:
            raise StreamLost("environment", f"it is {simulation or 'the real exchange'}, not {self._simulation}")

    def _read(self, socket: StreamSocket) -> None:
        requested_at = pinged_at = 0.0
        while not self._leaving.is_set():
            now = time.monotonic()
            self._require_life(now)
            if self._requests and now - requested_at >= 1 / REQUESTS_PER_SECOND:
                socket.send(self._requests.pop(0)[1])
                requested_at = now
            elif min(now - self._heard_at, now - pinged_at) > self._stale_after / 3:
                socket.ping()
                pinged_at = now
            data = socket.receive(min(_LONGEST_READ, self._stale_after / 4))
            if data is not None:
                self._heard_at = time.monotonic()
                if data:
                    self._take(data)

    def _require_life(self, now: float) -> None:
        """A connection that says nothing, not even pong, is half open; one without data has lost its streams."""
        if now - self._heard_at > self._stale_after:
            raise StreamLost("stale", f"nothing heard for {self._stale_after:g} s")
        if now - self.data_at > self._stale_after:
            raise StreamLost("silent", f"no bar for {self._stale_after:g} s, only pings")
        if not self.ready and now - self.opened_at > self._stale_after:
            raise StreamLost("subscription", "the subscriptions were not answered")

    def _take(self, data: bytes) -> None:
        self._metrics.frames.inc()
        try:
            found = decode_frame(data)
        except MalformedFrame as error:
            self._refuse(error)
            return
        if isinstance(found, KlineFrame):
            self.data_at = self._heard_at
            self._put(Heard(found, time.time_ns() // 1000))
        elif isinstance(found, ServerShutdown):
            self.retiring = True
            _LOG.info("the server will shut down")
        else:
            self._answered(found)

    def _refuse(self, error: MalformedFrame) -> None:
        """Count it; its reason is logged, though not of each in a flood."""
        self._metrics.errors.labels(f"frame_{error.kind}").inc()
        now = time.monotonic()
        if now - self._told_at.get(error.kind, -_TELL_EVERY) >= _TELL_EVERY:
            self._told_at[error.kind] = now
            _LOG.warning("malformed frame", extra={"kind": error.kind, "reason": str(error)[:200]})

    def _answered(self, answer: Answer) -> None:
        if answer.error:
            raise StreamLost("subscription", f"the server refused a subscription: {answer.error}")
        self._unanswered.discard(answer.id if isinstance(answer.id, int) else -1)
        self.ready = not self._unanswered

    def _put(self, event: Heard) -> None:
        # A full queue holds the reader back, and with it the exchange; it closes in the end, and REST has the rest.
        while not self._leaving.is_set():
            with suppress(Full):
                self._events.put(event, timeout=_LONGEST_READ)
                return
