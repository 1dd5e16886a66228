"""What only the Pub/Sub bus does: its topology, its limits, its errors. What it shares is in the contract suite."""

import socket
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core.exceptions import PermissionDenied
from google.auth.exceptions import DefaultCredentialsError

from ingestion.bus import pubsub_backlog, pubsub_client
from ingestion.bus.dead_letters import DeadLetter
from ingestion.bus.open import init_bus, open_bus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, TOPOLOGY, Backlog, Message, Received
from ingestion.bus.pubsub import PubSubBus
from ingestion.bus.pubsub_client import clients, explained
from ingestion.bus.pubsub_topology import create_missing
from ingestion.errors import BusUnavailable
from ingestion.settings import Settings, load_settings

pubsub = pytest.mark.pubsub


@pytest.fixture
def project(pubsub_emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty project."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_emulator)
    return f"test-{uuid.uuid4()}"


@pytest.fixture
def chosen(project: str) -> Settings:
    return load_settings(bus="pubsub", pubsub_project=project)


@pytest.fixture
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", address)
        yield address


@pubsub
def test_init_creates_what_is_missing_once(chosen: Settings) -> None:
    created = init_bus(chosen)
    assert [name.rpartition("/")[2] for name in created] == [
        "crypto-klines-raw",
        "crypto-klines-dlq",
        *(one.name for one in TOPOLOGY),
    ]
    assert init_bus(chosen) == []


@pubsub
def test_init_names_each_setting_that_is_wrong_and_changes_none(chosen: Settings, project: str) -> None:
    slow = replace(TOPOLOGY[0], ack_deadline=timedelta(seconds=300), retention=timedelta(days=1))
    with clients(project) as opened:
        create_missing(opened, (slow, replace(TOPOLOGY[1], dead_letter_topic="crypto-klines-dlq")))
    for _ in range(2):
        with pytest.raises(BusUnavailable) as caught:
            init_bus(chosen)
        assert f"{MICROBATCH}: ack deadline in seconds is 300, must be 60" in caught.value.message
        assert f"{MICROBATCH}: message retention is 1 day, 0:00:00, must be 7 days, 0:00:00" in caught.value.message
        assert "monitoring-sub: dead-letter topic is projects/" in caught.value.message


@pubsub
def test_opening_a_project_without_topics_names_the_remedy(chosen: Settings) -> None:
    with pytest.raises(BusUnavailable) as caught:
        open_bus(chosen)
    assert "crypto-klines-raw" in caught.value.message
    assert "klinehouse bus init" in caught.value.remedy


@pubsub
def test_what_one_request_cannot_hold_is_sent_in_several(chosen: Settings) -> None:
    init_bus(chosen)
    with open_bus(chosen) as bus:
        assert len(bus.publish(KLINES, [Message(bytes(4_000_000)) for _ in range(3)])) == 3
        found: list[Received] = []
        while len(found) < 3:
            found += bus.pull(MICROBATCH, max_messages=3, max_bytes=5_000_000, wait=20)
        assert [len(one.message.data) for one in found] == [4_000_000] * 3


@pubsub
def test_what_was_pulled_and_not_handed_out_is_given_back_at_the_end(project: str) -> None:
    quick = tuple(replace(one, min_backoff=timedelta(0), max_backoff=timedelta(0)) for one in TOPOLOGY)
    with clients(project) as opened:
        create_missing(opened, quick)
    with PubSubBus(project, quick) as bus:
        bus.publish(KLINES, [Message(bytes(400)), Message(bytes(400))])
        first = bus.pull(MICROBATCH, max_messages=2, max_bytes=400, wait=20)
    with PubSubBus(project, quick) as bus:
        (other,) = bus.pull(MICROBATCH, max_messages=2, max_bytes=1000, wait=20)
    assert other.message_id != first[0].message_id


def test_a_service_that_does_not_answer_is_named(nobody_there: str) -> None:
    with PubSubBus("nowhere", timeout=0.5) as bus, pytest.raises(BusUnavailable) as caught:
        bus.publish(KLINES, [Message(b"1")])
    assert nobody_there in caught.value.message
    assert "projects/nowhere/topics/crypto-klines-raw" in caught.value.message


def test_pulling_from_a_service_that_does_not_answer_is_no_empty_subscription(nobody_there: str) -> None:
    with PubSubBus("nowhere") as bus, pytest.raises(BusUnavailable, match=MICROBATCH):
        bus.pull(MICROBATCH, max_messages=1, max_bytes=1000, wait=0)


def test_a_denied_call_names_the_permission_and_the_resource() -> None:
    with (
        pytest.raises(BusUnavailable) as caught,
        explained("projects/p/topics/crypto-klines-raw", "pubsub.topics.publish"),
    ):
        raise PermissionDenied("User not authorized to perform this action.")
    assert "pubsub.topics.publish on projects/p/topics/crypto-klines-raw" in caught.value.message


def test_missing_credentials_say_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise DefaultCredentialsError("none found")

    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(pubsub_client, "PublisherClient", none)
    with pytest.raises(BusUnavailable) as caught:
        PubSubBus("p")
    assert "gcloud auth" in caught.value.remedy


def test_a_dead_letter_that_the_service_made_is_read() -> None:
    said = {
        "symbol": "BTCUSDT",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": MICROBATCH,
        "CloudPubSubDeadLetterSourceSubscriptionProject": "p",
        "CloudPubSubDeadLetterSourceTopicPublishTime": "2025-01-01T00:00:00.000+00:00",
    }
    received = Received("ack", "17", Message(b"1", said), datetime(2025, 1, 1, tzinfo=UTC), 1)
    letter = DeadLetter.of(received)
    assert (letter.original, letter.attempts) == (Message(b"1", {"symbol": "BTCUSDT"}), 5)
    assert (letter.subscription, letter.topic) == (MICROBATCH, KLINES)
    assert "neither acknowledged nor rejected" in letter.reason


class Monitoring:
    """Answers of Cloud Monitoring, as its REST API documents them."""

    def __init__(self, **values: int) -> None:
        self._values = values
        self.asked: list[str] = []

    def __enter__(self) -> "Monitoring":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get(self, url: str, params: dict[str, str], timeout: float) -> "Monitoring":
        self.asked.append(f"{url} {params['filter']}")
        return self

    def raise_for_status(self) -> None:
        pass

    def json(self) -> dict[str, object]:
        metric = self.asked[-1].partition("/subscription/")[2].partition('"')[0]
        if metric not in self._values:
            return {}
        point = {"interval": {"endTime": "2025-01-01T00:00:00Z"}, "value": {"int64Value": str(self._values[metric])}}
        return {"timeSeries": [{"points": [point]}]}


@pytest.fixture
def monitoring(monkeypatch: pytest.MonkeyPatch) -> Monitoring:
    answers = Monitoring(num_undelivered_messages=7, oldest_unacked_message_age=3600)
    monkeypatch.setattr(pubsub_backlog.google.auth, "default", lambda scopes: (None, "p"))
    monkeypatch.setattr(pubsub_backlog, "AuthorizedSession", lambda credentials: answers)
    return answers


def test_the_backlog_of_the_service_is_what_cloud_monitoring_says(monitoring: Monitoring) -> None:
    found = pubsub_backlog.measured("p", MICROBATCH)
    assert found.messages == 7
    assert found.oldest is not None
    assert abs(datetime.now(UTC) - timedelta(hours=1) - found.oldest) < timedelta(minutes=1)
    assert all("/projects/p/" in asked and f'"{MICROBATCH}"' in asked for asked in monitoring.asked)


def test_a_subscription_without_figures_has_nothing_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_backlog.google.auth, "default", lambda scopes: (None, "p"))
    monkeypatch.setattr(pubsub_backlog, "AuthorizedSession", lambda credentials: Monitoring())
    assert pubsub_backlog.measured("p", DEAD_LETTERS_SUBSCRIPTION) == Backlog(0, None)
