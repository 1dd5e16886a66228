"""Taking turns between processes: a lock whose holder can see that another process waits for it."""

import time
from pathlib import Path

from filelock import FileLock, Timeout


class Turn:
    """The turn at `path` (`.lock`, `.queue`). A process that dies gives it back. For one thread after
    the other, not for two at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_suffix(".lock"), thread_local=False)
        self._queue = FileLock(path.with_suffix(".queue"), thread_local=False)

    def take(self, timeout: float) -> bool:
        """Wait for the turn, visibly; False when it did not come within `timeout` seconds."""
        until = time.monotonic() + timeout
        try:
            with self._queue.acquire(timeout):
                self._lock.acquire(max(until - time.monotonic(), 0))
        except Timeout:
            return False
        return True

    def give_back(self) -> None:
        """Also when it was never taken."""
        self._lock.release()

    @property
    def is_taken(self) -> bool:
        """Whether this object has the turn."""
        return self._lock.is_locked

    def is_wanted(self) -> bool:
        """Whether another process waits for the turn."""
        return _is_held(self._queue)

    def is_anothers(self) -> bool:
        """Whether another process has the turn."""
        return not self.is_taken and _is_held(self._lock)


def _is_held(lock: FileLock) -> bool:
    try:
        with lock.acquire(0):
            return False
    except Timeout:
        return True
