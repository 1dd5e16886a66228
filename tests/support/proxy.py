"""A TCP proxy between a client and a server, which a test makes fail as networks do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Mode = Literal["pass", "black_hole", "refuse"]


class Proxy:
    """Listens on `port`. `mode` is of what is open and what will be: passed on, swallowed, or refused.

    `delay` is how long each piece of at most `piece` bytes takes, in seconds.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.mode: Mode = "pass"
        self.delay, self.piece = 0.0, 1 << 16
        self.accepted = 0

    def reset(self) -> None:
        """Every connection ends with a reset."""
        self._loop.call_soon_threadsafe(self._reset)

    def _reset(self) -> None:
        for writer in list(self._writers):
            found = writer.get_extra_info("socket")
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        if self.mode == "refuse":
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(back)
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        self._writers -= {writer, back}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(self.piece):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.mode != "black_hole":
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._reset()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    found, ready = Proxy(target), threading.Event()
    thread = threading.Thread(target=found.run, args=(ready,), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield found
    finally:
        found.stop()
        thread.join(timeout=5)
