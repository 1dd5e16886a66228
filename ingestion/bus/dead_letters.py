"""Dead letters: how a message becomes one, and what one says about the message that it was.

A dead letter has the data and the attributes of its message, and attributes of its own that say why it is one. Those
that Pub/Sub made by itself (of a message that nobody acknowledged or rejected) are read too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ingestion.bus.port import (
    ATTEMPTS,
    DEAD_LETTERS_SUBSCRIPTION,
    FIRST_PUBLISHED,
    REASON,
    SUBSCRIPTION,
    TOPOLOGY,
    Bus,
    Message,
    Received,
    Subscription,
)
from ingestion.errors import UsageError

# Pub/Sub takes attributes of at most 1,024 bytes.
_LONGEST_REASON = 1024
_PAGE, _PAGE_BYTES = 500, 64_000_000
_SERVICE = "CloudPubSubDeadLetterSource"
_OURS = (REASON, SUBSCRIPTION, ATTEMPTS, FIRST_PUBLISHED)


def dead_letter(message: Message, subscription: str, reason: str, attempts: int, published_at: datetime) -> Message:
    """What is published to the dead-letter topic in place of a message that a subscription gave up."""
    said = {
        REASON: reason.encode()[:_LONGEST_REASON].decode(errors="ignore"),
        SUBSCRIPTION: subscription,
        ATTEMPTS: str(attempts),
        FIRST_PUBLISHED: published_at.isoformat(),
    }
    return Message(message.data, {**message.attributes, **said})


def lapsed(subscription: Subscription, last_rejection: str | None) -> str:
    """The reason of a message that nobody acknowledged or rejected in its last delivery."""
    reason = (
        f"not acknowledged within {subscription.ack_deadline.total_seconds():g} s in the last of "
        f"{subscription.max_delivery_attempts} deliveries: its consumer died or was too slow"
    )
    return f"{reason}; rejected before: {last_rejection}" if last_rejection else reason


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter as it was received, and what it says; `original` is the message as it was first published."""

    received: Received
    original: Message
    reason: str
    subscription: str
    attempts: int | None
    first_published: str | None

    @classmethod
    def of(cls, received: Received) -> "DeadLetter":
        said = received.message.attributes
        original = {name: value for name, value in said.items() if name not in _OURS and not name.startswith(_SERVICE)}
        attempts = said.get(ATTEMPTS) or said.get(f"{_SERVICE}DeliveryCount") or ""
        return cls(
            received,
            Message(received.message.data, original),
            said.get(REASON) or "its consumer neither acknowledged nor rejected it; the service gave it up",
            said.get(SUBSCRIPTION) or said.get(f"{_SERVICE}Subscription") or "",
            int(attempts) if attempts.isdecimal() else None,
            said.get(FIRST_PUBLISHED) or said.get(f"{_SERVICE}TopicPublishTime"),
        )

    @property
    def topic(self) -> str | None:
        """Where the message came from; None when no subscription that we know gave it up."""
        return next((one.topic for one in TOPOLOGY if one.name == self.subscription), None)


@contextmanager
def borrowed(bus: Bus, limit: int) -> Iterator[list[DeadLetter]]:
    """The oldest dead letters, so many at most; those that nobody acknowledges meanwhile are given back."""
    received: list[Received] = []
    try:
        while len(received) < limit and (page := _page(bus, limit - len(received))):
            received += page
        yield [DeadLetter.of(one) for one in received]
    finally:
        bus.extend(DEAD_LETTERS_SUBSCRIPTION, [one.ack_id for one in received], 0)


def replay(bus: Bus, letter: DeadLetter, message: Message) -> None:
    """Publish the message to where the dead letter came from, then acknowledge that: a kill between makes it twice."""
    if letter.topic is None:
        raise UsageError(
            f"Dead letter {letter.received.message_id} names no subscription of this bus: {letter.subscription!r}.",
            "It was not made by Klinehouse; `klinehouse dlq show` has its data.",
        )
    bus.publish(letter.topic, [message])
    bus.acknowledge(DEAD_LETTERS_SUBSCRIPTION, [letter.received.ack_id])


def replay_all(bus: Bus) -> tuple[int, int]:
    """Replay whatever names its origin, as it was first published; returns how many were, and how many stay."""
    replayed, stay = 0, []
    while page := _page(bus, _PAGE):
        letters = [DeadLetter.of(one) for one in page]
        for topic in {letter.topic for letter in letters}:
            same = [letter for letter in letters if letter.topic == topic]
            if topic is None:
                stay += [letter.received.ack_id for letter in same]
                continue
            bus.publish(topic, [letter.original for letter in same])
            bus.acknowledge(DEAD_LETTERS_SUBSCRIPTION, [letter.received.ack_id for letter in same])
            replayed += len(same)
    bus.extend(DEAD_LETTERS_SUBSCRIPTION, stay, 0)
    return replayed, len(stay)


def purge(bus: Bus) -> int:
    """Acknowledge all dead letters; returns how many there were."""
    purged = 0
    while page := _page(bus, _PAGE):
        bus.acknowledge(DEAD_LETTERS_SUBSCRIPTION, [one.ack_id for one in page])
        purged += len(page)
    return purged


def _page(bus: Bus, limit: int) -> list[Received]:
    return bus.pull(DEAD_LETTERS_SUBSCRIPTION, max_messages=min(limit, _PAGE), max_bytes=_PAGE_BYTES, wait=0)
