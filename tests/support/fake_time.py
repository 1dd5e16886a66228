"""A clock that only sleeping moves."""

import threading


class FakeTime:
    """`clock` and `sleep` for what takes them; `slept` are the waits, in seconds. Safe to share between threads."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now, self._lock = start, threading.Lock()
        self.slept: list[float] = []

    def clock(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self._now += seconds
