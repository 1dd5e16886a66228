"""The bus of one machine: a queue in an SQLite file, with the semantics of Pub/Sub, for any number of processes.

What `publish`, `acknowledge` and the others returned from survives kills and power cuts.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from ingestion.bus.local_file import connect, explained, numbered
from ingestion.bus.local_queue import Queue
from ingestion.bus.port import MAX_LEASE, TOPOLOGY, Backlog, Message, Received, Subscription
from ingestion.errors import BusUnavailable

_Thing = TypeVar("_Thing")
# How often a waiting `pull` looks for the work of other processes, in seconds; a look costs microseconds.
_POLL = 0.005
# Messages of one transaction, so that nobody waits long for a turn.
_CHUNK = 1000


class LocalBus:
    """The queue in the file `path`, which is made where there is none. `clock` tells the seconds since 1970.

    Safe to share between threads, not across a fork.
    """

    def __init__(
        self, path: Path, topology: Sequence[Subscription] = TOPOLOGY, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._clock = path, clock
        self._subscriptions = {one.name: one for one in topology}
        self._turn = threading.Condition()
        self._own_writes = 0
        self._db = connect(path)
        self._queue = Queue(self._db, topology, numbered(self._db, path, self._subscriptions.keys()))

    def publish(self, topic: str, messages: Sequence[Message]) -> list[str]:
        ids = []
        for chunk in _chunks(messages):
            with self._transaction() as now:
                ids += self._queue.put(topic, chunk, now)
        return [str(number) for number in ids]

    def pull(self, subscription: str, *, max_messages: int, max_bytes: int, wait: float) -> list[Received]:
        known, deadline = self._known(subscription), time.monotonic() + wait
        with self._turn, explained(self._path):
            while True:
                seen = self._seen()
                if self._queue.is_anything_due(known, self._now()):
                    with self._transaction() as now:
                        leased = self._queue.lease(known, max_messages, max_bytes, now)
                    if leased:
                        return leased
                if not self._await_change(known, seen, deadline):
                    return []

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        known = self._known(subscription)
        for chunk in _chunks(ack_ids):
            with self._transaction() as now:
                self._queue.acknowledge(known, chunk, now)

    def reject(self, subscription: str, refused: Sequence[tuple[Received, str]]) -> None:
        known = self._known(subscription)
        for chunk in _chunks(refused):
            with self._transaction() as now:
                self._queue.reject(known, [(one.ack_id, reason) for one, reason in chunk], now)

    def extend(self, subscription: str, ack_ids: Sequence[str], seconds: float) -> None:
        known, lease = self._known(subscription), min(timedelta(seconds=seconds), MAX_LEASE)
        for chunk in _chunks(ack_ids):
            with self._transaction() as now:
                self._queue.extend(known, chunk, lease, now)

    def backlog(self, subscription: str) -> Backlog:
        known = self._known(subscription)
        with self._turn, explained(self._path):
            return self._queue.backlog(known, self._now())

    def close(self) -> None:
        with self._turn, explained(self._path):
            self._db.close()
            self._turn.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, name: str) -> Subscription:
        if name not in self._subscriptions:
            raise BusUnavailable(
                f"The bus has no subscription {name!r}.", f"It has {', '.join(sorted(self._subscriptions))}."
            )
        return self._subscriptions[name]

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """One transaction that writes, alone among threads and processes; yields the time."""
        with self._turn, explained(self._path):
            self._db.execute("begin immediate")
            try:
                yield self._now()
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
            self._own_writes += 1
            self._turn.notify_all()

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)

    def _seen(self) -> tuple[int, int]:
        """Changes when anybody writes; what SQLite counts leaves this connection out."""
        return self._own_writes, self._db.execute("pragma data_version").fetchone()[0]

    def _await_change(self, subscription: Subscription, seen: tuple[int, int], deadline: float) -> bool:
        """Until somebody wrote, or something is due again; false when the deadline comes first."""
        due_at = self._queue.next_due(subscription)
        while (left := deadline - time.monotonic()) > 0:
            self._turn.wait(min(left, _POLL))
            if self._seen() != seen or (due_at is not None and due_at <= self._now()):
                return True
        return False


def _chunks(things: Sequence[_Thing]) -> Iterator[Sequence[_Thing]]:
    return (things[start : start + _CHUNK] for start in range(0, len(things), _CHUNK))
