"""What has been collected and is not on the bus yet, durable, in order, with how far each series has got.

One SQLite file. A batch of bars and the watermarks of its series are one transaction, so a bar is either still to be
fetched or kept here; it leaves when the bus has it.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingestion.bus.port import Message
from ingestion.errors import ConfigurationError, KlinehouseError
from ingestion.klines import Series
from ingestion.messages import KlineMessage, encode
from ingestion.store import make_folder

_SCHEMA = """
create table if not exists messages (
    id integer primary key autoincrement, data blob not null, attributes text not null, received_time integer not null
);
create table if not exists watermarks (
    symbol text not null, "interval" text not null, next_open integer not null, primary key (symbol, "interval")
) without rowid;
"""
# Room for what is fetched again once the spool drains: it takes no bars between the two marks.
_RESUME_BELOW = 0.9


class SpoolBroken(KlinehouseError):
    """The spool's file cannot be read or written."""

    kind = "spool"


@dataclass(frozen=True)
class Spooled:
    """One message of the spool; `received_time` is when its bar came, in microseconds since 1970."""

    id: int
    message: Message
    received_time: int


class Spool:
    """Safe to share between threads. Raises SpoolBroken; what was written before stays."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()
        make_folder(path.parent)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # FULL: with NORMAL a power cut takes commits back.
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = full")
            self._connection.executescript(_SCHEMA)
            self.messages, self.bytes = self._measure()
            self._watermarks = {
                Series(symbol, interval): next_open
                for symbol, interval, next_open in self._connection.execute("select * from watermarks")
            }
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"The collector's spool {path} cannot be opened: {error}.",
                "Check the disk. Moved away, a new one is made: what it held is fetched again as far as the bus or "
                "history lack it by `klinehouse heal`.",
            ) from error
        self.is_full = self.bytes >= max_bytes

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def watermark(self, series: Series) -> int | None:
        """When the first bar opens that is not settled, in microseconds; None for a series that is new."""
        return self._watermarks.get(series)

    def append(self, bars: Sequence[KlineMessage], watermarks: Mapping[Series, int]) -> None:
        """Keep bars behind those that are here, and the watermarks with them."""
        rows = [
            (message.data, json.dumps(dict(message.attributes)), bar.received_time) for bar, message in _encoded(bars)
        ]
        marks = [(series.symbol, series.interval, next_open) for series, next_open in watermarks.items()]
        with self._transaction() as connection:
            connection.executemany("insert into messages (data, attributes, received_time) values (?, ?, ?)", rows)
            connection.executemany("insert or replace into watermarks values (?, ?, ?)", marks)
        with self._lock:
            self._watermarks.update(watermarks)
            self._count(len(rows), sum(len(data) for data, _, _ in rows))

    def head(self, max_messages: int) -> list[Spooled]:
        """The oldest messages, in order."""
        with self._lock, self._errors():
            rows = self._connection.execute(
                "select id, data, attributes, received_time from messages order by id limit ?", [max_messages]
            ).fetchall()
        return [Spooled(key, Message(data, json.loads(attributes)), at) for key, data, attributes, at in rows]

    def remove(self, published: Sequence[Spooled]) -> None:
        """The bus has these, which are the oldest ones."""
        with self._transaction() as connection:
            connection.execute("delete from messages where id <= ?", [published[-1].id])
        with self._lock:
            self._count(-len(published), -sum(len(one.message.data) for one in published))

    def _count(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size
        self.is_full = self.bytes >= self._max_bytes * (_RESUME_BELOW if self.is_full else 1)

    def _measure(self) -> tuple[int, int]:
        count, size = self._connection.execute("select count(*), total(length(data)) from messages").fetchone()
        return int(count), int(size)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._connection.execute("begin immediate")
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolBroken(
                f"The collector's spool {self._path} failed: {error}.", "Check the disk and the space left."
            ) from error


def _encoded(bars: Sequence[KlineMessage]) -> Iterator[tuple[KlineMessage, Message]]:
    return ((bar, encode(bar)) for bar in bars)
