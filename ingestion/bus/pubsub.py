"""The bus on Google Pub/Sub, or on its emulator where PUBSUB_EMULATOR_HOST names one.

What Pub/Sub does otherwise than the local bus: messages come roughly, not exactly, oldest first; one may come again
although it was acknowledged; `extend` by 0 seconds is a rejection to the service, so that the message comes again after
the backoff, and a delivery is counted.
"""

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from google.api_core.exceptions import DeadlineExceeded
from google.pubsub_v1 import types

from ingestion.bus.dead_letters import dead_letter
from ingestion.bus.port import MAX_LEASE, TOPOLOGY, Backlog, Message, Received, Subscription
from ingestion.bus.pubsub_client import EMULATOR, Clients, explained, retry
from ingestion.bus.pubsub_topology import require
from ingestion.errors import BusUnavailable

# A request of the service has at most 1,000 messages and 10 MB.
_MOST_MESSAGES, _MOST_BYTES = 1000, 9_000_000
# Less than this and the answer may be lost on its way, and its messages are leased to nobody.
_SHORTEST_WAIT = 1.0
_PEEK = 1000


class PubSubBus:
    """Topics and subscriptions of one Google Cloud project. `timeout` bounds, in seconds, all tries of one call."""

    def __init__(self, project: str, topology: Sequence[Subscription] = TOPOLOGY, timeout: float = 30.0) -> None:
        self._clients = Clients.of(project)
        self._topology, self._timeout = topology, timeout
        self._subscriptions = {one.name: one for one in topology}
        self._lock = threading.Lock()
        self._kept: dict[str, list[tuple[float, Received]]] = {}

    @classmethod
    def verified(cls, project: str) -> Self:
        """Raises BusUnavailable when the project lacks a topic or a subscription."""
        bus = cls(project)
        try:
            require(bus._clients, bus._topology)
        except BaseException:
            bus.close()
            raise
        return bus

    def publish(self, topic: str, messages: Sequence[Message]) -> list[str]:
        name = self._clients.topic(topic)
        ids: list[str] = []
        for chunk in _requests(messages):
            sent = [types.PubsubMessage(data=one.data, attributes=dict(one.attributes)) for one in chunk]
            with explained(name, "pubsub.topics.publish"):
                answer = self._clients.publisher.publish(
                    topic=name, messages=sent, timeout=self._timeout, retry=retry(self._timeout)
                )
            ids += answer.message_ids
        return ids

    def pull(self, subscription: str, *, max_messages: int, max_bytes: int, wait: float) -> list[Received]:
        """As the port says, but `wait` is at least a second."""
        known, deadline = self._known(subscription), time.monotonic() + max(wait, _SHORTEST_WAIT)
        ready = self._take_kept(known)
        while not ready and (left := deadline - time.monotonic()) > 0:
            ready = self._ask(known, max_messages, left)
        size, taken = 0, 0
        for _, one in ready[:max_messages]:
            size += len(one.message.data)
            if size > max_bytes and taken:
                break
            taken += 1
        with self._lock:
            self._kept.setdefault(subscription, []).extend(ready[taken:])
        return [one for _, one in ready[:taken]]

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        name = self._clients.subscription(self._known(subscription).name)
        for start in range(0, len(ack_ids), _MOST_MESSAGES):
            with explained(name, "pubsub.subscriptions.consume"):
                self._clients.subscriber.acknowledge(
                    subscription=name,
                    ack_ids=list(ack_ids[start : start + _MOST_MESSAGES]),
                    timeout=self._timeout,
                    retry=retry(self._timeout),
                )

    def reject(self, subscription: str, refused: Sequence[tuple[Received, str]]) -> None:
        """After the last delivery the message is published to the dead-letter topic from here, as only we know why.

        The service's own dead-letter policy is left with those that nobody rejects.
        """
        known = self._known(subscription)
        last = [both for both in refused if both[0].delivery_attempt >= known.max_delivery_attempts]
        if known.dead_letter_topic and last:
            letters = [
                dead_letter(one.message, known.name, reason, one.delivery_attempt, one.published_at)
                for one, reason in last
            ]
            self.publish(known.dead_letter_topic, letters)
            self.acknowledge(subscription, [one.ack_id for one, _ in last])
            refused = [both for both in refused if both[0].delivery_attempt < known.max_delivery_attempts]
        self.extend(subscription, [one.ack_id for one, _ in refused], 0)

    def extend(self, subscription: str, ack_ids: Sequence[str], seconds: float) -> None:
        name = self._clients.subscription(self._known(subscription).name)
        for start in range(0, len(ack_ids), _MOST_MESSAGES):
            with explained(name, "pubsub.subscriptions.consume"):
                self._clients.subscriber.modify_ack_deadline(
                    subscription=name,
                    ack_ids=list(ack_ids[start : start + _MOST_MESSAGES]),
                    ack_deadline_seconds=min(math.ceil(seconds), int(MAX_LEASE.total_seconds())),
                    timeout=self._timeout,
                    retry=retry(self._timeout),
                )

    def backlog(self, subscription: str) -> Backlog:
        """What Cloud Monitoring says, a minute or two late. The emulator has none: there, what peeking finds, at most
        1,000 messages, and that counts as a delivery."""
        self._known(subscription)
        if EMULATOR in os.environ:
            return self._peeked(subscription)
        # Its library is wanted by nothing else.
        from ingestion.bus.pubsub_backlog import measured

        return measured(self._clients.project, subscription)

    def close(self) -> None:
        """What was pulled and not handed out is given back."""
        for subscription, kept in self._kept.items():
            self.extend(subscription, [one.ack_id for _, one in kept], 0)
        self._kept.clear()
        self._clients.close()

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

    def _take_kept(self, subscription: Subscription) -> list[tuple[float, Received]]:
        """What was more than the last caller could take, as long as there is enough left of its lease."""
        with self._lock:
            kept = self._kept.pop(subscription.name, [])
        return [(until, one) for until, one in kept if until > time.monotonic()]

    def _ask(self, subscription: Subscription, max_messages: int, wait: float) -> list[tuple[float, Received]]:
        name = self._clients.subscription(subscription.name)
        fresh_until = time.monotonic() + subscription.ack_deadline.total_seconds() / 2
        with explained(name, "pubsub.subscriptions.consume"):
            try:
                answer = self._clients.subscriber.pull(
                    subscription=name, max_messages=min(max_messages, _MOST_MESSAGES), timeout=wait, retry=retry(wait)
                )
            except DeadlineExceeded:
                return []
        received = sorted((_received(one) for one in answer.received_messages), key=lambda one: one.published_at)
        return [(fresh_until, one) for one in received]

    def _peeked(self, subscription: str) -> Backlog:
        found = self.pull(subscription, max_messages=_PEEK, max_bytes=1 << 30, wait=0)
        self.extend(subscription, [one.ack_id for one in found], 0)
        return Backlog(len(found), min((one.published_at for one in found), default=None))


def _received(one: types.ReceivedMessage) -> Received:
    at: datetime = one.message.publish_time
    return Received(
        one.ack_id,
        one.message.message_id,
        Message(one.message.data, dict(one.message.attributes)),
        datetime.fromtimestamp(at.timestamp(), UTC),
        # Without dead-lettering the service does not count.
        one.delivery_attempt or 1,
    )


def _requests(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """In order, as many as one request takes."""
    first = size = 0
    for index, message in enumerate(messages):
        if index > first and (index - first == _MOST_MESSAGES or size + _size(message) > _MOST_BYTES):
            yield messages[first:index]
            first, size = index, 0
        size += _size(message)
    if messages:
        yield messages[first:]


def _size(message: Message) -> int:
    return len(message.data) + sum(len(name) + len(value) + 20 for name, value in message.attributes.items())
