"""One connection of the stream: handshake, control messages, pings, and what ends it.

A protocol of the server that serves the other faces, on the same port; made on the WebSocket library's Sans-I/O half,
so that pings, aborts and the bytes of every frame are in our hands.
"""

import asyncio
import math
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from ingestion.binance.http import SIMULATED_HEADER
from ingestion.simulator.control import Subscriptions, TooManyStreams
from ingestion.simulator.frames import enveloped, text_frame
from ingestion.simulator.stream_limits import StreamLimits

_UNITS = ("MILLISECOND", "millisecond", "MICROSECOND", "microsecond")
_POLICY, _GOING_AWAY = 1008, 1001
_CLOSE_WITHIN = 2.0


class Refusal(Exception):
    """A handshake that is refused with an HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Target:
    """What the address of a connection asks for."""

    streams: list[str]
    combined: bool
    micro: bool

    @classmethod
    def parse(cls, address: str, most: int) -> "Target":
        """`/ws`, `/ws/STREAM`, `/stream` or `/stream?streams=A/B`; Refusal for anything else and for too many."""
        parts = urlsplit(address)
        path, query = unquote(parts.path).rstrip("/"), parse_qs(parts.query)
        unit = query.get("timeUnit", ["MILLISECOND"])[-1]
        if unit not in _UNITS:
            raise Refusal(400, "Invalid timeUnit.\n")
        micro = unit.upper() == "MICROSECOND"
        if path != "/stream" and path != "/ws" and not path.startswith("/ws/"):
            raise Refusal(404, "Not found\n")
        combined = path == "/stream"
        names = "/".join(query.get("streams", [])) if combined else path.removeprefix("/ws")
        streams = [name for name in names.split("/") if name]
        if len(streams) > most:
            raise Refusal(400, "Too many streams\n")
        return cls(streams, combined, micro)


class Host(Protocol):
    """What a connection needs of the face that it belongs to."""

    name: str
    limits: StreamLimits
    shutdown_after: float

    def admit(self) -> None:
        """Raises Refusal."""

    def opened(self, connection: "Connection") -> None: ...

    def gone(self, connection: "Connection", why: str) -> None: ...

    def changed(self, connection: "Connection", new: list[str], left: list[str]) -> None: ...

    def fire(self, fault: str) -> None: ...

    def exchange_micros(self) -> int: ...


class Connection(asyncio.Protocol):
    """Lives from the handshake until either side ends it."""

    def __init__(self, host: Host, others: "set[Any]") -> None:
        self._host, self._others, self._limits = host, others, host.limits
        self._protocol = ServerProtocol(max_size=1 << 17)
        self._transport = cast("asyncio.Transport", None)
        self._messages: deque[float] = deque(maxlen=host.limits.messages_per_second)
        self._pings: dict[bytes, float] = {}
        self._silent_until = 0.0
        self._why = "client_left"
        self._is_open = False
        self._pinged = self._shutdown_at = 0.0
        self._born = 0
        self.micro = False
        self.subscriptions = Subscriptions(limit=host.limits.streams, changed=self._changed)

    # --- events of the transport -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif self._is_open and self._protocol.state is State.OPEN:
                self._receive(cast("Frame", event))
        self._flush()

    def shutdown(self) -> None:
        """The server is about to stop."""
        self.announce_shutdown(0.0)
        self._transport.close()
        asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self._transport.abort)

    # --- what the face asks ------------------------------------------------------------------------------------

    @property
    def is_combined(self) -> bool:
        return self.subscriptions.combined

    @property
    def is_silent(self) -> bool:
        return time.monotonic() < self._silent_until

    @property
    def why(self) -> str:
        """What keeps frames from going out, when something does."""
        return "stream_silence" if self.is_silent else self._why

    def send(self, frame: bytes) -> bool:
        """Write a whole frame; False when the connection is closing or silent. A slow reader is cut off."""
        if not self._is_open or self._protocol.state is not State.OPEN or self.is_silent:
            return False
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > self._limits.buffer_bytes:
            self._host.fire("stream_slow_reader")
            self.drop("stream_slow_reader")
        return self._is_open

    def drop(self, why: str) -> None:
        """Cut the connection without a word, as a broken network does; what was sent before still leaves."""
        self._why = why
        self._leave()
        asyncio.get_running_loop().call_soon(self._transport.abort)

    def be_silent(self, seconds: float) -> None:
        """Stay open and write nothing, not even an answer."""
        self._silent_until = time.monotonic() + seconds
        self._pings.clear()

    def announce_shutdown(self, lead: float) -> None:
        """Tell that the server goes down, and close after `lead` seconds."""
        if not self._is_open or self._protocol.state is not State.OPEN:
            return
        instant = self._host.exchange_micros() // (1 if self.micro else 1000)
        event = f'{{"e":"serverShutdown","E":{instant}}}'
        self.send(text_frame(enveloped("!serverShutdown", event) if self.subscriptions.combined else event))
        if lead:
            asyncio.get_running_loop().call_later(lead, self._close, _GOING_AWAY, "", "server_shutdown")
        else:
            self._close(_GOING_AWAY, "", "server_shutdown")

    def tend(self) -> None:
        """What time brings: pings, missing pongs, the end of life. Called every fraction of a second."""
        if self._protocol.state is not State.OPEN or self.is_silent:
            return
        instant = time.monotonic()
        if self._pings and instant - next(iter(self._pings.values())) > self._limits.pong_within:
            self._end("stream_no_pong", "Pong timeout")
        elif self._host.exchange_micros() - self._born > self._limits.life * 1e6:
            self._end("stream_end_of_life", "Connection expired")
        elif self._host.shutdown_after and instant >= self._shutdown_at:
            self._shutdown_at = math.inf
            self._host.fire("stream_shutdown")
            self.announce_shutdown(self._limits.shutdown_lead)
        elif instant - self._pinged >= self._limits.ping_every:
            self._pinged = instant
            payload = str(self._host.exchange_micros() // 1000).encode()
            self._pings.setdefault(payload, instant)
            self._protocol.send_ping(payload)
            self._flush()

    # --- within ------------------------------------------------------------------------------------------------

    def _shake_hands(self, request: Request) -> None:
        target = None
        try:
            self._host.admit()
            target = Target.parse(request.path, self._limits.streams)
            response = self._protocol.accept(request)
        except Refusal as refusal:
            response = self._protocol.reject(refusal.status, refusal.text)
        response.headers[SIMULATED_HEADER] = self._host.name
        self._protocol.send_response(response)
        self._flush()
        if target is None or response.status_code != 101:
            self._transport.close()
            return
        self._limit_kernel_buffer()
        self._pinged = time.monotonic()
        self._shutdown_at = self._pinged + self._host.shutdown_after
        self._born = self._host.exchange_micros()
        self._is_open, self.micro = True, target.micro
        self.subscriptions.combined = target.combined
        self._host.opened(self)
        self.subscriptions.add(target.streams)

    def _leave(self) -> None:
        if self._is_open:
            self._is_open = False
            self._host.gone(self, self._why)

    def _limit_kernel_buffer(self) -> None:
        """The kernel would buffer megabytes more for a client that does not read."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(self._limits.buffer_bytes, 4096))

    def _receive(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.PING, Opcode.PONG) and self._is_too_fast():
            self._end("stream_too_many_messages", "Too many requests")
        elif frame.opcode is Opcode.PONG:
            self._take_pong(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            try:
                answer = self.subscriptions.answer(bytes(frame.data).decode(errors="replace"))
            except TooManyStreams:
                self._end("stream_too_many_streams", "Too many streams")
            else:
                self.send(text_frame(answer))

    def _is_too_fast(self) -> bool:
        instant = time.monotonic()
        is_full = len(self._messages) == self._messages.maxlen
        too_fast = is_full and instant - self._messages[0] < 1.0
        self._messages.append(instant)
        return too_fast

    def _take_pong(self, payload: bytes) -> None:
        """A pong answers the ping with its payload and those before it; one that answers none does not count."""
        if payload in self._pings:
            for earlier in list(self._pings):
                del self._pings[earlier]
                if earlier == payload:
                    break

    def _changed(self, new: list[str], left: list[str]) -> None:
        self._host.changed(self, new, left)

    def _end(self, fault: str, reason: str) -> None:
        self._host.fire(fault)
        self._close(_POLICY, reason, fault)

    def _close(self, code: int, reason: str, why: str) -> None:
        if self._protocol.state is State.OPEN:
            self._why = why
            self._protocol.send_close(code, reason)
            self._flush()
            asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self._transport.abort)

    def _flush(self) -> None:
        """Write what the library has to say; its empty part means that we have no more to say.

        The client closes then. Closing first would lose our last words when it has sent something in the meantime.
        """
        for data in self._protocol.data_to_send():
            if not data:
                self._transport.write_eof()
                asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self._transport.abort)
            elif not self.is_silent:
                self._transport.write(data)
