"""The tables of the local bus and what is done with them: each method is part of a transaction that the caller holds.

Everything goes by index, so that it costs the same whatever else waits. Times are microseconds since 1970.
"""

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ingestion.bus.dead_letters import dead_letter, lapsed
from ingestion.bus.port import MAX_LEASE, Backlog, Message, Received, Subscription
from ingestion.errors import BusUnavailable

_LOG = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# In one transaction, so that nobody waits long for a turn; the next one goes on.
_MOST_EXPIRED = 10_000
_DAMAGED = "its bytes are not those that were published: the disk has damaged it"


class Queue:
    """The messages and deliveries of one file, whose subscriptions have these numbers there."""

    def __init__(self, db: sqlite3.Connection, topology: Sequence[Subscription], numbers: Mapping[str, int]) -> None:
        self._db, self._numbers = db, numbers
        self._topics: dict[str, list[Subscription]] = {}
        for one in topology:
            self._topics.setdefault(one.topic, []).append(one)

    # --- publishing --------------------------------------------------------------------------------------------------

    def put(self, topic: str, messages: Iterable[Message], now: int) -> list[int]:
        """A copy for each subscription of the topic; the content is shared."""
        readers = self._topics.get(topic)
        if readers is None:
            raise BusUnavailable(f"The bus has no topic {topic!r}.", f"It has {', '.join(sorted(self._topics))}.")
        ids = [self._put(readers, message, now) for message in messages]
        for one in readers:
            self._drop_expired(one, now)
        return ids

    def _put(self, readers: Sequence[Subscription], message: Message, now: int) -> int:
        attributes = json.dumps(dict(message.attributes)).encode()
        number = self._db.execute(
            "insert into messages (published_at, data, attributes, checksum) values (?, ?, ?, ?)",
            (now, message.data, attributes, _checksum(now, message.data, attributes)),
        ).lastrowid
        if number is None:
            raise RuntimeError("SQLite gave a new row no number.")
        self._db.executemany(
            "insert into deliveries (message, subscription, attempts, leased) values (?, ?, 0, 0)",
            [(number, self._numbers[one.name]) for one in readers],
        )
        return number

    # --- delivering --------------------------------------------------------------------------------------------------

    def is_anything_due(self, subscription: Subscription, now: int) -> bool:
        number = self._numbers[subscription.name]
        found = self._db.execute(
            "select exists (select 1 from deliveries indexed by ready where subscription = ? and due_at is null) "
            "or exists (select 1 from deliveries indexed by waiting where subscription = ? and due_at <= ?) "
            "or exists (select 1 from deliveries indexed by waiting where subscription = ? and due_at > ?)",
            [number, number, now, number, _beyond(now)],
        ).fetchone()
        return bool(found[0])

    def next_due(self, subscription: Subscription) -> int | None:
        """When the first delivery that is leased or held back is due again."""
        found = self._db.execute(
            "select min(due_at) from deliveries indexed by waiting where subscription = ? and due_at is not null",
            [self._numbers[subscription.name]],
        ).fetchone()
        due_at: int | None = found[0]
        return due_at

    def lease(self, subscription: Subscription, max_messages: int, max_bytes: int, now: int) -> list[Received]:
        """The oldest that are ready, at least one if there is any, leased from now on."""
        self._release_due(subscription, now)
        self._drop_expired(subscription, now)
        leased: list[Received] = []
        damaged: list[tuple[int, int]] = []
        size = 0
        for number, attempts, published_at, data, attributes, checksum in self._ready(subscription, max_messages):
            if not _is_whole(published_at, data, attributes, checksum):
                damaged.append((number, attempts))
                continue
            size += len(data)
            if size > max_bytes and leased:
                break
            message = Message(data, json.loads(attributes))
            leased.append(
                Received(f"{number}:{attempts + 1}", str(number), message, instant(published_at), attempts + 1)
            )
        numbers = [int(one.message_id) for one in leased]
        self._mark_leased(subscription, numbers, now + micros(subscription.ack_deadline))
        for number, attempts in damaged:
            _LOG.error("message %d of %s: %s", number, subscription.name, _DAMAGED)
            self._bury(subscription, number, attempts, _DAMAGED, now)
        return leased

    def _ready(self, subscription: Subscription, limit: int) -> Iterator[tuple[int, int, int, bytes, bytes, int]]:
        return self._db.execute(
            "select d.message, d.attempts, m.published_at, m.data, m.attributes, m.checksum "
            "from deliveries d indexed by ready cross join messages m on m.id = d.message "
            "where d.subscription = ? and d.due_at is null order by d.message limit ?",
            [self._numbers[subscription.name], limit],
        )

    def _mark_leased(self, subscription: Subscription, numbers: Iterable[int], until: int) -> None:
        self._db.executemany(
            "update deliveries set attempts = attempts + 1, due_at = ?, leased = 1 "
            "where message = ? and subscription = ?",
            [(until, number, self._numbers[subscription.name]) for number in numbers],
        )

    def _release_due(self, subscription: Subscription, now: int) -> None:
        """Make ready what has been held back long enough; leases that ran out are held back, or were the last."""
        number = self._numbers[subscription.name]
        due = self._db.execute(
            "select message, attempts, due_at, leased, rejection from deliveries indexed by waiting "
            "where subscription = ? and due_at <= ? union all "
            "select message, attempts, 0, leased, rejection from deliveries indexed by waiting "
            "where subscription = ? and due_at > ?",
            [number, now, number, _beyond(now)],
        ).fetchall()
        for message, attempts, due_at, leased, rejection in due:
            if leased and _is_last(subscription, attempts):
                self._bury(subscription, message, attempts, lapsed(subscription, rejection), now)
                continue
            again = due_at + _backoff(subscription, attempts) if leased else due_at
            self._hold_back(subscription, message, again if again > now else None, rejection)

    def _drop_expired(self, subscription: Subscription, now: int) -> None:
        """Forget what has waited for longer than the subscription retains it."""
        number, before = self._numbers[subscription.name], now - micros(subscription.retention)
        ready = (
            "select d.message, m.published_at from deliveries d indexed by ready cross join messages m "
            "on m.id = d.message where d.subscription = ? and d.due_at is null order by d.message limit ?"
        )
        expired = []
        for message, published_at in self._db.execute(ready, [number, _MOST_EXPIRED]):
            if published_at >= before:
                break
            expired.append(message)
        if expired:
            _LOG.warning("%d messages of %s have expired unread", len(expired), subscription.name)
            self._db.executemany(
                "delete from deliveries where message = ? and subscription = ?", [(one, number) for one in expired]
            )
            self._forget(expired)

    # --- ends of a delivery ------------------------------------------------------------------------------------------

    def acknowledge(self, subscription: Subscription, ack_ids: Iterable[str], now: int) -> None:
        deliveries = [parsed(ack_id) for ack_id in ack_ids]
        number = self._numbers[subscription.name]
        self._db.executemany(
            "delete from deliveries where message = ? and subscription = ? and attempts = ? and leased and due_at > ?",
            [(message, number, attempts, now) for message, attempts in deliveries],
        )
        self._forget(message for message, _ in deliveries)

    def reject(self, subscription: Subscription, refused: Iterable[tuple[str, str]], now: int) -> None:
        number = self._numbers[subscription.name]
        for ack_id, reason in refused:
            message, attempts = parsed(ack_id)
            is_leased = self._db.execute(
                "select 1 from deliveries "
                "where message = ? and subscription = ? and attempts = ? and leased and due_at > ?",
                [message, number, attempts, now],
            ).fetchone()
            if is_leased and _is_last(subscription, attempts):
                self._bury(subscription, message, attempts, reason, now)
            elif is_leased:
                backoff = _backoff(subscription, attempts)
                self._hold_back(subscription, message, now + backoff if backoff else None, reason)

    def extend(self, subscription: Subscription, ack_ids: Iterable[str], lease: timedelta, now: int) -> None:
        """A lease of no length gives the message back."""
        number, until = self._numbers[subscription.name], now + micros(lease) if lease else None
        self._db.executemany(
            "update deliveries set due_at = ?, leased = ? "
            "where message = ? and subscription = ? and attempts = ? and leased and due_at > ?",
            [(until, bool(lease), message, number, attempts, now) for message, attempts in map(parsed, ack_ids)],
        )

    def _hold_back(self, subscription: Subscription, message: int, until: int | None, rejection: str | None) -> None:
        """Until then, or until the next pull."""
        self._db.execute(
            "update deliveries set due_at = ?, leased = 0, rejection = ? where message = ? and subscription = ?",
            [until, rejection, message, self._numbers[subscription.name]],
        )

    def _bury(self, subscription: Subscription, number: int, attempts: int, reason: str, now: int) -> None:
        """Make it a dead letter, where the subscription has those; there or not, it is delivered no more."""
        if subscription.dead_letter_topic:
            published_at, data, attributes, checksum = self._db.execute(
                "select published_at, data, attributes, checksum from messages where id = ?", [number]
            ).fetchone()
            if _is_whole(published_at, data, attributes, checksum):
                message, at = Message(data, json.loads(attributes)), instant(published_at)
            else:
                message, at = Message(data if isinstance(data, bytes) else b""), instant(now)
            self.put(
                subscription.dead_letter_topic, [dead_letter(message, subscription.name, reason, attempts, at)], now
            )
        self._db.execute(
            "delete from deliveries where message = ? and subscription = ?", [number, self._numbers[subscription.name]]
        )
        self._forget([number])

    def _forget(self, messages: Iterable[int]) -> None:
        """Delete the content of those that no subscription needs any more."""
        self._db.executemany(
            "delete from messages where id = ?1 and not exists (select 1 from deliveries where message = ?1)",
            [(message,) for message in messages],
        )

    # --- looking -----------------------------------------------------------------------------------------------------

    def backlog(self, subscription: Subscription, now: int) -> Backlog:
        number = self._numbers[subscription.name]
        ready, first_ready = self._db.execute(
            "select count(*), min(message) from deliveries indexed by ready where subscription = ? and due_at is null",
            [number],
        ).fetchone()
        waiting, first_waiting, leased = self._db.execute(
            "select count(*), min(message), coalesce(sum(leased and due_at > ?), 0) "
            "from deliveries where subscription = ? and due_at is not null",
            [now, number],
        ).fetchone()
        first = min((one for one in (first_ready, first_waiting) if one is not None), default=None)
        oldest = self._db.execute("select published_at from messages where id = ?", [first]).fetchone()
        return Backlog(ready + waiting, instant(oldest[0]) if oldest else None, leased)


def micros(length: timedelta) -> int:
    return length // timedelta(microseconds=1)


def instant(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def parsed(ack_id: str) -> tuple[int, int]:
    """The message and the attempt of a delivery."""
    message, _, attempt = ack_id.partition(":")
    return int(message), int(attempt)


def _is_last(subscription: Subscription, attempts: int) -> bool:
    return subscription.dead_letter_topic is not None and attempts >= subscription.max_delivery_attempts


def _backoff(subscription: Subscription, attempts: int) -> int:
    """After so many deliveries: doubling each time."""
    doubled = micros(subscription.min_backoff) << min(max(attempts - 1, 0), 30)
    return min(doubled, micros(subscription.max_backoff))


def _beyond(now: int) -> int:
    """Nothing is leased or held back for longer than this, unless the clock was set back meanwhile: then it is due."""
    return now + micros(MAX_LEASE)


def _checksum(published_at: int, data: bytes, attributes: bytes) -> int:
    return zlib.crc32(b"%d" % published_at, zlib.crc32(attributes, zlib.crc32(data)))


def _is_whole(published_at: int, data: bytes, attributes: bytes, checksum: int) -> bool:
    """A flipped bit may also have made another type of a value."""
    try:
        return _checksum(published_at, data, attributes) == checksum
    except TypeError:
        return False
