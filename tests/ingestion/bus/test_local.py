"""The local bus: time, retention, several processes, files that are something else."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ingestion.bus.dead_letters import DeadLetter
from ingestion.bus.local import LocalBus
from ingestion.bus.port import (
    DEAD_LETTERS_SUBSCRIPTION,
    KLINES,
    MICROBATCH,
    MONITORING,
    TOPOLOGY,
    Message,
    Received,
)
from ingestion.errors import BusUnavailable


class Clock:
    """Seconds since 1970, which only a test moves."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus" / "bus.sqlite"


@pytest.fixture
def bus(path: Path, clock: Clock) -> Iterator[LocalBus]:
    with LocalBus(path, clock=clock) as opened:
        yield opened


def take(bus: LocalBus, subscription: str = MICROBATCH, most: int = 1000) -> list[Received]:
    return bus.pull(subscription, max_messages=most, max_bytes=1 << 30, wait=0)


def texts(received: list[Received]) -> list[bytes]:
    return [one.message.data for one in received]


def acks(received: list[Received]) -> list[str]:
    return [one.ack_id for one in received]


# --- time --------------------------------------------------------------------------------------------------------


def test_a_lease_lasts_a_minute_and_then_the_backoff(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    take(bus)
    clock.now += 69.9
    assert take(bus) == []
    clock.now += 0.1
    assert [one.delivery_attempt for one in take(bus)] == [2]


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 80), (6, 320), (7, 600), (40, 600)])
def test_a_rejected_message_waits_longer_each_time(path: Path, clock: Clock, attempt: int, seconds: int) -> None:
    endless = tuple(replace(one, dead_letter_topic=None) for one in TOPOLOGY)
    with LocalBus(path, endless, clock) as bus:
        bus.publish(KLINES, [Message(b"1")])
        for _ in range(attempt - 1):
            bus.extend(MICROBATCH, acks(take(bus)), 0)
        bus.reject(MICROBATCH, [(one, "no") for one in take(bus)])
        clock.now += seconds - 0.001
        assert take(bus) == []
        clock.now += 0.001
        assert len(take(bus)) == 1


def test_an_acknowledgement_after_the_lease_is_ignored(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    late = take(bus)
    clock.now += 60
    bus.acknowledge(MICROBATCH, acks(late))
    clock.now += 10
    assert texts(take(bus)) == [b"1"]


def test_an_acknowledgement_of_an_earlier_delivery_is_ignored(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    first = take(bus)
    clock.now += 70
    take(bus)
    bus.acknowledge(MICROBATCH, acks(first))
    bus.reject(MICROBATCH, [(one, "late") for one in first])
    bus.extend(MICROBATCH, acks(first), 0)
    assert bus.backlog(MICROBATCH).leased == 1


def test_a_lease_can_be_extended(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    received = take(bus)
    clock.now += 59
    bus.extend(MICROBATCH, acks(received), 300)
    clock.now += 299
    bus.acknowledge(MICROBATCH, acks(received))
    assert bus.backlog(MICROBATCH).messages == 0


def test_a_lease_is_never_longer_than_ten_minutes(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    bus.extend(MICROBATCH, acks(take(bus)), 86_400)
    clock.now += 600
    assert bus.backlog(MICROBATCH).leased == 0


def test_a_clock_set_back_holds_nothing_back(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    take(bus)
    clock.now -= 3600
    assert texts(take(bus)) == [b"1"]


def test_waiting_ends_when_a_message_is_due_again(path: Path) -> None:
    with LocalBus(path) as bus:
        bus.publish(KLINES, [Message(b"1")])
        received = take(bus, MONITORING)
        quick = tuple(replace(one, min_backoff=timedelta(0), max_backoff=timedelta(0)) for one in TOPOLOGY)
        with LocalBus(path, quick) as waiting:
            bus.extend(MONITORING, acks(received), 0.2)
            assert len(waiting.pull(MONITORING, max_messages=1, max_bytes=1000, wait=20)) == 1


# --- dead letters and retention ----------------------------------------------------------------------------------


def test_a_message_whose_consumer_dies_each_time_becomes_a_dead_letter(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"deadly")])
    for attempt in range(1, 6):
        assert [one.delivery_attempt for one in take(bus)] == [attempt]
        clock.now += 60 + 600
    assert take(bus) == []
    letter = DeadLetter.of(take(bus, DEAD_LETTERS_SUBSCRIPTION)[0])
    assert (letter.original.data, letter.attempts) == (b"deadly", 5)
    assert letter.reason.startswith("not acknowledged within 60 s in the last of 5 deliveries")


def test_its_reason_has_what_was_said_before(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"1")])
    for _ in range(4):
        bus.reject(MICROBATCH, [(one, "the disk is full") for one in take(bus)])
        clock.now += 600
    take(bus)
    clock.now += 60
    take(bus)
    letter = DeadLetter.of(take(bus, DEAD_LETTERS_SUBSCRIPTION)[0])
    assert letter.reason.endswith("rejected before: the disk is full")


def test_what_waits_for_seven_days_is_forgotten(bus: LocalBus, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"old")])
    clock.now += 3600
    bus.publish(KLINES, [Message(b"new")])
    clock.now += 7 * 86_400 - 1800
    assert texts(take(bus)) == [b"new"]


def test_what_nobody_pulls_is_forgotten_by_publishing(bus: LocalBus, path: Path, clock: Clock) -> None:
    bus.publish(KLINES, [Message(b"%d" % i) for i in range(10)])
    clock.now += 7 * 86_400 + 1
    bus.publish(KLINES, [Message(b"new")])
    assert [bus.backlog(one).messages for one in (MICROBATCH, MONITORING)] == [1, 1]
    assert contents(path) == [b"new"]


def test_a_content_is_kept_once_and_as_long_as_a_subscription_needs_it(bus: LocalBus, path: Path) -> None:
    bus.publish(KLINES, [Message(b"1"), Message(b"2")])
    bus.acknowledge(MICROBATCH, acks(take(bus)))
    assert contents(path) == [b"1", b"2"]
    bus.acknowledge(MONITORING, acks(take(bus, MONITORING, 1)))
    assert contents(path) == [b"2"]


def contents(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute("select data from messages order by id")]
    db.close()
    return found


# --- several processes -------------------------------------------------------------------------------------------

_PUBLISHER = """
import sys
from pathlib import Path
from ingestion.bus.local import LocalBus
from ingestion.bus.port import KLINES, Message
with LocalBus(Path(sys.argv[1])) as bus:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(100):
        bus.publish(KLINES, [Message(b"%d-%d" % (int(sys.argv[2]), j)) for j in range(i * 10, i * 10 + 10)])
"""


def test_processes_share_a_file_that_none_has_made(path: Path) -> None:
    publishers = [
        subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for one in publishers:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in publishers:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        found: list[bytes] = []
        with LocalBus(path) as bus:
            while len(found) < 2000:
                received = bus.pull(MICROBATCH, max_messages=100, max_bytes=1 << 20, wait=20)
                assert received
                bus.acknowledge(MICROBATCH, acks(received))
                found += texts(received)
    finally:
        for one in publishers:
            one.communicate()
    assert sorted(found) == sorted(b"%d-%d" % (number, j) for number in range(2) for j in range(1000))


def test_threads_that_make_the_same_file_do_not_collide(path: Path) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            with LocalBus(path) as bus:
                bus.publish(KLINES, [Message(b"1")])
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with LocalBus(path) as bus:
        assert len(take(bus)) == 8


def test_waiting_costs_next_to_no_time_of_the_processor(bus: LocalBus) -> None:
    begin = time.thread_time()
    bus.pull(MICROBATCH, max_messages=1, max_bytes=1, wait=0.5)
    assert time.thread_time() - begin < 0.1


def test_the_cost_of_a_pull_does_not_grow_with_what_waits(bus: LocalBus) -> None:
    """Counted in steps of SQLite's machine, which do not depend on the machine below."""

    def steps() -> int:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        bus._db.set_progress_handler(step, 10)
        received = take(bus, most=10)
        bus.acknowledge(MICROBATCH, acks(received))
        bus.publish(KLINES, [Message(b"x")] * 10)
        bus._db.set_progress_handler(None, 0)
        return count

    bus.publish(KLINES, [Message(b"x")] * 20)
    few = steps()
    bus.publish(KLINES, [Message(b"x")] * 5000)
    take(bus, most=2000)
    assert steps() < 1.5 * few


# --- files that are something else -------------------------------------------------------------------------------


def test_every_transaction_waits_for_the_disk(bus: LocalBus) -> None:
    """NORMAL (1) loses acknowledged messages at a power cut; without a log, readers and writers exclude each other."""
    settings = [bus._db.execute(f"pragma {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert settings == [2, "wal"]


def refused(path: Path) -> BusUnavailable:
    with pytest.raises(BusUnavailable) as caught:
        LocalBus(path)
    assert str(path) in caught.value.message
    return caught.value


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    path.write_bytes(b"these are notes, not a queue. " * 100)
    assert "klinehouse bus init" in refused(path).remedy


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("create table notes (text)")
    db.close()
    before = path.read_bytes()
    assert "something else" in refused(path).message
    assert path.read_bytes() == before


def test_a_later_version_of_the_file_is_left_alone(path: Path, bus: LocalBus) -> None:
    bus.close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    assert "version 99" in refused(path).message


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BusUnavailable, match="file"):
        LocalBus(tmp_path / "file" / "bus" / "bus.sqlite")


def test_a_closed_bus_says_so(bus: LocalBus) -> None:
    bus.close()
    with pytest.raises(BusUnavailable, match="closed"):
        take(bus)


def test_a_message_that_the_disk_has_damaged_becomes_a_dead_letter(bus: LocalBus, path: Path) -> None:
    bus.publish(KLINES, [Message(b"price 93576.00"), Message(b"price 93577.00")])
    with sqlite3.connect(path) as db:
        db.execute("update messages set data = cast('price 13576.00' as blob) where id = 1")
    db.close()
    assert texts(take(bus)) == [b"price 93577.00"]
    letter = DeadLetter.of(take(bus, DEAD_LETTERS_SUBSCRIPTION)[0])
    assert "not those that were published" in letter.reason


def test_a_torn_file_is_noticed_or_harmless(path: Path, bus: LocalBus, clock: Clock) -> None:
    """Bits flip anywhere in the file: a message comes as it was published, is a dead letter, or the file is refused."""
    sent = [b"%06d" % i * 20 for i in range(300)]
    bus.publish(KLINES, [Message(text) for text in sent])
    bus.close()
    whole, choose, refusals = path.read_bytes(), random.Random(1), 0
    for _ in range(60):
        torn = bytearray(whole)
        for _ in range(8):
            torn[choose.randrange(len(torn))] ^= 1 << choose.randrange(8)
        path.write_bytes(torn)
        for left_over in path.parent.glob("bus.sqlite-*"):
            left_over.unlink()
        try:
            with LocalBus(path, clock=clock) as opened:
                assert set(texts(take(opened))) <= set(sent)
        except BusUnavailable:
            refusals += 1
    assert 0 < refusals < 60


def test_a_full_disk_takes_nothing_that_it_cannot_keep(bus: LocalBus) -> None:
    bus.publish(KLINES, [Message(b"kept")])
    bus._db.execute("pragma max_page_count = 20")
    with pytest.raises(BusUnavailable, match="full"):
        bus.publish(KLINES, [Message(bytes(4000)) for _ in range(100)])
    bus._db.execute("pragma max_page_count = 1000000")
    bus.publish(KLINES, [Message(b"afterwards")])
    assert texts(take(bus)) == [b"kept", b"afterwards"]
