"""What every bus does: one suite, run against the local bus and against Pub/Sub."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.bus import dead_letters
from ingestion.bus.local import LocalBus
from ingestion.bus.port import (
    ATTEMPTS,
    DEAD_LETTERS_SUBSCRIPTION,
    FIRST_PUBLISHED,
    KLINES,
    MICROBATCH,
    MONITORING,
    REASON,
    SUBSCRIPTION,
    TOPOLOGY,
    Bus,
    Message,
    Received,
)
from ingestion.errors import BusUnavailable

# Rejected messages come again at once.
FAST = tuple(
    replace(one, ack_deadline=timedelta(seconds=30), min_backoff=timedelta(0), max_backoff=timedelta(0))
    for one in TOPOLOGY
)
# Long enough for any answer that must come.
PATIENCE = 20.0


@pytest.fixture(params=["local", pytest.param("pubsub", marks=pytest.mark.pubsub)])
def bus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """An empty bus."""
    opened: Bus
    if request.param == "local":
        opened = LocalBus(tmp_path / "bus.sqlite", FAST)
    else:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", request.getfixturevalue("pubsub_emulator"))
        opened = _on_pubsub(f"test-{uuid.uuid4()}")
    with opened:
        yield opened


def _on_pubsub(project: str) -> Bus:
    from ingestion.bus.pubsub import PubSubBus
    from ingestion.bus.pubsub_client import clients
    from ingestion.bus.pubsub_topology import create_missing

    with clients(project) as opened:
        create_missing(opened, FAST)
    return PubSubBus(project, FAST)


def pulled(bus: Bus, subscription: str, count: int) -> list[Received]:
    """So many messages, in as many pulls as it takes."""
    found: list[Received] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += bus.pull(subscription, max_messages=count - len(found), max_bytes=1 << 30, wait=PATIENCE)
    assert len(found) == count
    return found


def rest(bus: Bus, subscription: str) -> list[Received]:
    """What is there now; usually it must be nothing."""
    return bus.pull(subscription, max_messages=1000, max_bytes=1 << 30, wait=0)


def acks(received: list[Received]) -> list[str]:
    return [one.ack_id for one in received]


def test_every_subscription_of_a_topic_gets_its_own_copy(bus: Bus) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    (sent,) = bus.publish(KLINES, [Message(b"\0\xffkline", {"symbol": "BTCUSDT", "note": "ärger"})])
    for subscription in (MICROBATCH, MONITORING):
        (got,) = pulled(bus, subscription, 1)
        assert got.message == Message(b"\0\xffkline", {"symbol": "BTCUSDT", "note": "ärger"})
        assert (got.message_id, got.delivery_attempt) == (sent, 1)
        assert before < got.published_at < datetime.now(UTC) + timedelta(seconds=1)
        bus.acknowledge(subscription, acks([got]))
    assert rest(bus, DEAD_LETTERS_SUBSCRIPTION) == []


def test_publishing_nothing_is_no_error(bus: Bus) -> None:
    assert bus.publish(KLINES, []) == []


def test_ids_come_in_the_order_of_the_messages(bus: Bus) -> None:
    ids = bus.publish(KLINES, [Message(b"%d" % i) for i in range(50)])
    got = {one.message_id: one.message.data for one in pulled(bus, MICROBATCH, 50)}
    assert [got[one] for one in ids] == [b"%d" % i for i in range(50)]


def test_the_oldest_come_first(bus: Bus) -> None:
    for i in range(5):
        bus.publish(KLINES, [Message(b"%d" % i)])
        time.sleep(0.002)  # the emulator tells milliseconds apart
    assert [one.message.data for one in pulled(bus, MICROBATCH, 5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_what_is_acknowledged_does_not_come_again(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1"), Message(b"2")])
    first, second = pulled(bus, MICROBATCH, 2)
    bus.acknowledge(MICROBATCH, acks([first]))
    bus.extend(MICROBATCH, acks([first, second]), 0)
    assert [one.message_id for one in pulled(bus, MICROBATCH, 1)] == [second.message_id]
    assert rest(bus, MICROBATCH) == []


def test_acknowledging_twice_is_no_error(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    ids = acks(pulled(bus, MICROBATCH, 1))
    bus.acknowledge(MICROBATCH, ids)
    bus.acknowledge(MICROBATCH, ids)
    assert bus.backlog(MICROBATCH).messages == 0


def test_a_leased_message_does_not_come_again(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    pulled(bus, MICROBATCH, 1)
    assert rest(bus, MICROBATCH) == []


def test_no_more_messages_come_than_are_asked_for(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"%d" % i) for i in range(5)])
    got = bus.pull(MICROBATCH, max_messages=3, max_bytes=1 << 30, wait=PATIENCE)
    assert 1 <= len(got) <= 3
    assert len(got) + len(pulled(bus, MICROBATCH, 5 - len(got))) == 5


def test_no_more_bytes_come_than_are_asked_for_and_none_is_left_behind(bus: Bus) -> None:
    bus.publish(KLINES, [Message(bytes(400)) for _ in range(5)])
    found: list[Received] = []
    while len(found) < 5:
        got = bus.pull(MICROBATCH, max_messages=10, max_bytes=1000, wait=PATIENCE)
        assert sum(len(one.message.data) for one in got) in (400, 800)
        found += got
    assert {one.delivery_attempt for one in found} == {1}


def test_a_message_larger_than_the_bound_comes_alone(bus: Bus) -> None:
    bus.publish(KLINES, [Message(bytes(5000)), Message(b"small")])
    sizes = [
        [len(one.message.data) for one in bus.pull(MICROBATCH, max_messages=10, max_bytes=1000, wait=PATIENCE)]
        for _ in range(2)
    ]
    assert sorted(sizes) == [[5], [5000]]


def test_pulling_waits_for_a_message(bus: Bus) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pulled, bus, MICROBATCH, 1)
        time.sleep(0.2)  # most likely it waits by now; where it does not, this tests less
        begin = time.monotonic()
        bus.publish(KLINES, [Message(b"1")])
        assert waiting.result()[0].message.data == b"1"
        assert time.monotonic() - begin < PATIENCE / 2


def test_pulling_gives_up_when_nothing_comes(bus: Bus) -> None:
    assert bus.pull(MICROBATCH, max_messages=1, max_bytes=1000, wait=0.05) == []


def test_a_rejected_message_comes_again_and_counts_its_deliveries(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1", {"a": "b"})])
    first = pulled(bus, MICROBATCH, 1)
    bus.reject(MICROBATCH, [(one, "not yet") for one in first])
    (again,) = pulled(bus, MICROBATCH, 1)
    assert (again.message_id, again.message, again.delivery_attempt) == (
        first[0].message_id,
        Message(b"1", {"a": "b"}),
        2,
    )


def die(bus: Bus, reason: str) -> None:
    """Reject the only message of the micro-batches until it is a dead letter."""
    for attempt in range(1, 6):
        received = pulled(bus, MICROBATCH, 1)
        assert received[0].delivery_attempt == attempt
        bus.reject(MICROBATCH, [(one, reason) for one in received])


def test_after_five_rejections_a_message_is_a_dead_letter_that_says_why(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"no kline", {"symbol": "BTCUSDT"})])
    published_at = pulled(bus, MONITORING, 1)[0].published_at
    die(bus, "it is no JSON (ü)")
    (letter,) = pulled(bus, DEAD_LETTERS_SUBSCRIPTION, 1)
    assert letter.message.data == b"no kline"
    assert letter.message.attributes == {
        "symbol": "BTCUSDT",
        REASON: "it is no JSON (ü)",
        SUBSCRIPTION: MICROBATCH,
        ATTEMPTS: "5",
        FIRST_PUBLISHED: published_at.isoformat(),
    }
    assert rest(bus, MICROBATCH) == []


def test_messages_that_are_rejected_together_keep_their_own_reasons(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1"), Message(b"2")])
    for _ in range(5):
        bus.reject(MICROBATCH, [(one, f"no {one.message.data!r}") for one in pulled(bus, MICROBATCH, 2)])
    letters = pulled(bus, DEAD_LETTERS_SUBSCRIPTION, 2)
    assert {one.message.data: one.message.attributes[REASON] for one in letters} == {b"1": "no b'1'", b"2": "no b'2'"}


def test_a_reason_is_cut_to_what_an_attribute_holds(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    die(bus, "ü" * 5000)
    (letter,) = pulled(bus, DEAD_LETTERS_SUBSCRIPTION, 1)
    assert letter.message.attributes[REASON] == "ü" * 512


def test_what_is_only_watched_never_becomes_a_dead_letter(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    for _ in range(7):
        bus.reject(MONITORING, [(one, "again") for one in pulled(bus, MONITORING, 1)])
    assert len(pulled(bus, MONITORING, 1)) == 1
    assert rest(bus, DEAD_LETTERS_SUBSCRIPTION) == []


def test_a_message_whose_lease_runs_out_comes_again(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    (first,) = pulled(bus, MICROBATCH, 1)
    bus.extend(MICROBATCH, acks([first]), 1)
    (again,) = pulled(bus, MICROBATCH, 1)
    assert (again.message_id, again.delivery_attempt) == (first.message_id, 2)


def test_a_message_given_back_comes_again(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    (first,) = pulled(bus, MONITORING, 1)
    bus.extend(MONITORING, acks([first]), 0)
    assert pulled(bus, MONITORING, 1)[0].message_id == first.message_id


def test_the_backlog_counts_what_is_not_acknowledged(bus: Bus) -> None:
    assert bus.backlog(MONITORING).messages == 0
    assert bus.backlog(MONITORING).oldest is None
    bus.publish(KLINES, [Message(b"1"), Message(b"2")])
    oldest = bus.backlog(MONITORING).oldest
    assert bus.backlog(MONITORING).messages == 2
    assert oldest is not None
    assert abs(oldest - datetime.now(UTC)) < timedelta(minutes=1)
    bus.acknowledge(MONITORING, acks(pulled(bus, MONITORING, 2)))
    assert bus.backlog(MONITORING).messages == 0


def test_many_messages_all_arrive(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"%d" % i, {"symbol": "BTCUSDT"}) for i in range(2500)])
    received = pulled(bus, MICROBATCH, 2500)
    bus.acknowledge(MICROBATCH, acks(received))
    assert sorted(int(one.message.data) for one in received) == list(range(2500))
    assert rest(bus, MICROBATCH) == []


def test_threads_share_a_bus(bus: Bus) -> None:
    done, lock = [], threading.Lock()

    def publish(thread: int) -> None:
        for i in range(20):
            bus.publish(KLINES, [Message(b"%d-%d" % (thread, i))])

    def consume() -> None:
        while len(done) < 80:
            received = bus.pull(MICROBATCH, max_messages=7, max_bytes=1000, wait=0.2)
            bus.acknowledge(MICROBATCH, acks(received))
            with lock:
                done.extend(one.message.data for one in received)

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(publish, thread) for thread in range(4)] + [pool.submit(consume) for _ in range(2)]
        for one in running:
            one.result()
    assert sorted(done) == sorted(b"%d-%d" % (thread, i) for thread in range(4) for i in range(20))


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.publish("no-such-topic", [Message(b"1")]),
        lambda bus: bus.pull("no-such-sub", max_messages=1, max_bytes=1, wait=0),
        lambda bus: bus.acknowledge("no-such-sub", []),
        lambda bus: bus.reject("no-such-sub", []),
        lambda bus: bus.extend("no-such-sub", [], 0),
        lambda bus: bus.backlog("no-such-sub"),
    ],
    ids=["publish", "pull", "acknowledge", "reject", "extend", "backlog"],
)
def test_a_name_that_the_bus_does_not_have_is_named(bus: Bus, use: Callable[[Bus], object]) -> None:
    with pytest.raises(BusUnavailable, match="no-such-"):
        use(bus)


def test_looking_at_dead_letters_leaves_them_there(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1")])
    die(bus, "bad")
    for _ in range(7):
        with dead_letters.borrowed(bus, 1) as (letter,):
            assert (letter.reason, letter.attempts, letter.topic) == ("bad", 5, KLINES)


def test_a_replayed_dead_letter_is_the_message_again(bus: Bus) -> None:
    bus.publish(KLINES, [Message(b"1", {"symbol": "BTCUSDT"})])
    die(bus, "bad")
    with dead_letters.borrowed(bus, 1) as (letter,):
        dead_letters.replay(bus, letter, letter.original)
    (again,) = pulled(bus, MICROBATCH, 1)
    assert (again.message, again.delivery_attempt) == (Message(b"1", {"symbol": "BTCUSDT"}), 1)
    assert rest(bus, DEAD_LETTERS_SUBSCRIPTION) == []


def test_all_dead_letters_can_be_replayed_or_purged(bus: Bus) -> None:
    for text in (b"1", b"2"):
        bus.publish(KLINES, [Message(text)])
        die(bus, "bad")
    assert dead_letters.replay_all(bus) == (2, 0)
    assert {one.message.data for one in pulled(bus, MICROBATCH, 2)} == {b"1", b"2"}
    assert dead_letters.purge(bus) == 0
