"""Dead letters: how a message becomes one, and what one says about the message that it was.

A dead letter has the data and the attributes of its message, and attributes of its own that say why it is one. Those
that Pub/Sub made by itself (of a message that nobody acknowledged or rejected) are read too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ingestion.bus.port import (
    ATTEMPTS,
    FIRST_PUBLISHED,
    REASON,
    SUBSCRIPTION,
    Message,
    Received,
    Subscription,
)
from ingestion.errors import UsageError

# Pub/Sub takes attributes of at most 1,024 bytes.
_LONGEST_REASON = 1024
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

    def topic_in(self, topology: Sequence[Subscription]) -> str:
        """The topic that the message came from. Raises UsageError when no subscription of the bus gave it up."""
        for one in topology:
            if one.name == self.subscription:
                return one.topic
        raise UsageError(
            f"Dead letter {self.received.message_id} names no subscription of this bus: {self.subscription!r}.",
            "It was not made by Klinehouse; `klinehouse dlq show` has its data.",
        )
