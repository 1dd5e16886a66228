"""The topics and subscriptions of Pub/Sub: what is missing is created, what is there is compared and never changed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from google.api_core.exceptions import AlreadyExists, Forbidden, NotFound
from google.pubsub_v1 import types

from ingestion.bus.port import Subscription
from ingestion.bus.pubsub_client import Clients, explained, retry
from ingestion.errors import BusUnavailable

_TIMEOUT = 30.0


def create_missing(clients: Clients, topology: Sequence[Subscription]) -> list[str]:
    """Create the topics and subscriptions that are missing; returns their full names.

    Raises BusUnavailable that names each setting of those that exist that is not as it must be.
    """
    created = [clients.topic(topic) for topic in _topics(topology) if _create_topic(clients, topic)]
    wrong = []
    for one in topology:
        existing = _existing(clients, one.name)
        if existing is None:
            _create_subscription(clients, one)
            created.append(clients.subscription(one.name))
        else:
            wrong += [f"{one.name}: {difference}" for difference in _differences(clients, existing, one)]
    if wrong:
        raise BusUnavailable(
            f"Subscriptions of {clients.project} are not as they must be: {'; '.join(wrong)}.",
            "Correct them with `gcloud pubsub subscriptions update`, or delete them when they are empty and run "
            "`klinehouse bus init` again.",
        )
    return created


def require(clients: Clients, topology: Sequence[Subscription]) -> None:
    """Raises BusUnavailable when a topic or subscription is missing; one that may not be looked at counts as there."""
    for topic in _topics(topology):
        name = clients.topic(topic)
        with explained(name, "pubsub.topics.get"), suppress(Forbidden):
            clients.publisher.get_topic(topic=name, timeout=_TIMEOUT, retry=retry(_TIMEOUT))
    for one in topology:
        name = clients.subscription(one.name)
        with explained(name, "pubsub.subscriptions.get"), suppress(Forbidden):
            clients.subscriber.get_subscription(subscription=name, timeout=_TIMEOUT, retry=retry(_TIMEOUT))


def _topics(topology: Sequence[Subscription]) -> list[str]:
    named = [one.topic for one in topology] + [one.dead_letter_topic for one in topology if one.dead_letter_topic]
    return list(dict.fromkeys(named))


def _create_topic(clients: Clients, topic: str) -> bool:
    name = clients.topic(topic)
    with explained(name, "pubsub.topics.create"), suppress(AlreadyExists):
        clients.publisher.create_topic(name=name, timeout=_TIMEOUT, retry=retry(_TIMEOUT))
        return True
    return False


def _existing(clients: Clients, subscription: str) -> types.Subscription | None:
    name = clients.subscription(subscription)
    with explained(name, "pubsub.subscriptions.get"), suppress(NotFound):
        return clients.subscriber.get_subscription(subscription=name, timeout=_TIMEOUT, retry=retry(_TIMEOUT))
    return None


def _create_subscription(clients: Clients, one: Subscription) -> None:
    with explained(clients.subscription(one.name), "pubsub.subscriptions.create"):
        clients.subscriber.create_subscription(request=_wanted(clients, one), timeout=_TIMEOUT, retry=retry(_TIMEOUT))


def _wanted(clients: Clients, one: Subscription) -> types.Subscription:
    wanted = types.Subscription(
        name=clients.subscription(one.name),
        topic=clients.topic(one.topic),
        ack_deadline_seconds=int(one.ack_deadline.total_seconds()),
        message_retention_duration=one.retention,
        # Without this a subscription that nobody reads for a month is deleted.
        expiration_policy=types.ExpirationPolicy(),
    )
    if one.max_backoff:
        wanted.retry_policy = types.RetryPolicy(minimum_backoff=one.min_backoff, maximum_backoff=one.max_backoff)
    if one.dead_letter_topic:
        wanted.dead_letter_policy = types.DeadLetterPolicy(
            dead_letter_topic=clients.topic(one.dead_letter_topic), max_delivery_attempts=one.max_delivery_attempts
        )
    return wanted


def _differences(clients: Clients, existing: types.Subscription, one: Subscription) -> Iterator[str]:
    wanted = _wanted(clients, one)
    for setting, found, must in zip(_SETTINGS, _values(existing), _values(wanted), strict=True):
        if found != must:
            yield f"{setting} is {found}, must be {must}"


_SETTINGS = (
    "topic",
    "ack deadline in seconds",
    "message retention",
    "expiration",
    "minimum backoff",
    "maximum backoff",
    "dead-letter topic",
    "maximum delivery attempts",
)


def _values(one: types.Subscription) -> tuple[object, ...]:
    ttl = one.expiration_policy.ttl
    return (
        one.topic,
        one.ack_deadline_seconds,
        one.message_retention_duration,
        ttl or "never",
        one.retry_policy.minimum_backoff or "none",
        one.retry_policy.maximum_backoff or "none",
        one.dead_letter_policy.dead_letter_topic or "none",
        one.dead_letter_policy.max_delivery_attempts or "none",
    )
