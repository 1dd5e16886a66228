"""What a bus does: at-least-once delivery with deadlines, delivery attempts and dead letters, as Google Pub/Sub has it.

A message is published to a topic; each subscription of the topic gets its own copy. A pulled message is leased for the
subscription's ack deadline: acknowledged it is gone, rejected or left alone it is delivered again, later each time,
and after `max_delivery_attempts` deliveries it becomes a dead letter: a message of the dead-letter topic that says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

KLINES = "crypto-klines-raw"
DEAD_LETTERS = "crypto-klines-dlq"
MICROBATCH = "crypto-klines-microbatch-sub"
MONITORING = "crypto-klines-monitoring-sub"
DEAD_LETTERS_SUBSCRIPTION = "crypto-klines-dlq-sub"

# Attributes of a dead letter besides those of the message: why it was rejected, by whom, after how many deliveries, and
# when it was first sent.
REASON = "dead_letter_reason"
SUBSCRIPTION = "dead_letter_subscription"
ATTEMPTS = "dead_letter_attempts"
FIRST_PUBLISHED = "dead_letter_first_published"

# The longest lease, and the longest extension of one, that Pub/Sub gives.
MAX_LEASE = timedelta(seconds=600)


@dataclass(frozen=True)
class Subscription:
    """How one subscription of a topic delivers."""

    name: str
    topic: str
    ack_deadline: timedelta = timedelta(seconds=60)
    max_delivery_attempts: int = 5
    retention: timedelta = timedelta(days=7)
    min_backoff: timedelta = timedelta(seconds=10)
    max_backoff: timedelta = timedelta(seconds=600)
    dead_letter_topic: str | None = DEAD_LETTERS


# The dead letters themselves, and what is only watched, are not dead-lettered again. Dead letters are looked at and
# given back: without a backoff, so that they can be looked at again at once.
TOPOLOGY = (
    Subscription(MICROBATCH, KLINES),
    Subscription(MONITORING, KLINES, dead_letter_topic=None),
    Subscription(
        DEAD_LETTERS_SUBSCRIPTION,
        DEAD_LETTERS,
        dead_letter_topic=None,
        min_backoff=timedelta(0),
        max_backoff=timedelta(0),
    ),
)


@dataclass(frozen=True)
class Message:
    """What is published: bytes, and attributes that can be read without decoding them."""

    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """One delivery of a message. `ack_id` is of this delivery, `message_id` of the message; the first attempt is 1."""

    ack_id: str
    message_id: str
    message: Message
    published_at: datetime
    delivery_attempt: int


@dataclass(frozen=True)
class Backlog:
    """What a subscription has not acknowledged: how many messages, when the oldest of them was published, and how many
    of them are leased (None: the bus does not tell)."""

    messages: int
    oldest: datetime | None
    leased: int | None = None


class Bus(Protocol):
    """A bus whose topology exists. Safe to share between threads; raises BusUnavailable when it cannot be reached."""

    def publish(self, topic: str, messages: Sequence[Message]) -> list[str]:
        """Publish in order; returns their ids when all are durable on the bus."""

    def pull(self, subscription: str, *, max_messages: int, max_bytes: int, wait: float) -> list[Received]:
        """Lease what is there, oldest first, as soon as there is anything; nothing after `wait` seconds of nothing.

        `max_bytes` bounds the sum of the data; one message that is larger than that comes alone.
        """

    def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """The messages are done with. An id whose lease has run out is ignored: the message will come again."""

    def reject(self, subscription: str, refused: Sequence[tuple[Received, str]]) -> None:
        """Give messages back, each with why: they come again after the backoff, or become dead letters that say it."""

    def extend(self, subscription: str, ack_ids: Sequence[str], seconds: float) -> None:
        """Lease messages for so many seconds from now, MAX_LEASE at most; 0 gives them back: at once, on Pub/Sub after
        the subscription's backoff."""

    def backlog(self, subscription: str) -> Backlog:
        """What waits there, leased messages included. Pub/Sub tells it only through Cloud Monitoring: there, what
        peeking finds."""

    def close(self) -> None:
        """Release connections and threads."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
