"""A WebSocket that takes no more than it is told to: of a frame, of a message in fragments, and of the answer to its
opening, which must also come in time. (websocket-client bounds none of these.)
"""

import time
from typing import Any

import websocket
from websocket import ABNF, continuous_frame, frame_buffer

# An answer to an opening has some hundred bytes.
_OPENING = 1 << 14


class TooMuch(websocket.WebSocketException):
    """The other side sends more than is taken."""


class BoundedWebSocket(websocket.WebSocket):
    """Takes frames and messages of at most `most` bytes; for the opening it waits `seconds`."""

    def __init__(self, most: int, seconds: float, options: list[tuple[int, int, int]]) -> None:
        self._seconds, self._is_opening = seconds, True
        super().__init__(skip_utf8_validation=True, sockopt=options)
        self.frame_buffer = _Frames(self._recv, most)
        self.cont_frame = _Fragments(most)

    def open(self, url: str) -> None:
        self.connect(url, timeout=self._seconds, redirect_limit=0, suppress_origin=True)  # type: ignore[no-untyped-call]  # the library's
        self._is_opening = False
        self.sock = self.sock.plain

    @property
    def sock(self) -> Any:
        return self._sock

    @sock.setter
    def sock(self, found: Any) -> None:
        """The library sets it between connecting and reading the answer."""
        self._sock = _Opening(found, self._seconds) if found and self._is_opening else found


class _Opening:
    """The socket while the answer to the opening comes."""

    def __init__(self, plain: Any, seconds: float) -> None:
        self.plain, self._left, self._until = plain, _OPENING, time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0:
            raise websocket.WebSocketTimeoutException("its answer has no end")
        self.plain.settimeout(left)
        data: bytes = self.plain.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch("its answer is too long")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


class _Frames(frame_buffer):
    """Refuses a frame by the length that it declares, before any of it is read."""

    def __init__(self, receive: Any, most: int) -> None:
        super().__init__(receive, skip_utf8_validation=True)
        self._most = most

    def recv_length(self) -> None:
        super().recv_length()
        if self.length is not None and self.length > self._most:
            raise TooMuch(f"a frame of {self.length} bytes; it has at most {self._most}")


class _Fragments(continuous_frame):
    """Refuses a message whose fragments add up to too much."""

    def __init__(self, most: int) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)
        self._most = most

    def add(self, frame: ABNF) -> None:
        super().add(frame)
        if self.cont_data and len(self.cont_data[1]) > self._most:
            raise TooMuch(f"a message of more than {self._most} bytes")
