"""The local bus against a model of a few lines, over any order of calls and any passing of time."""

import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, TOPOLOGY, Message, Received

LEASE, ATTEMPTS, BACKOFF, LONGEST_BACKOFF = 60, 5, 10, 600


@dataclass
class Copy:
    """What the model knows of one message: until when it is leased or held back, and how often it was delivered."""

    attempts: int = 0
    due_at: float = 0.0
    ack_id: str | None = None

    def backoff(self) -> float:
        return min(BACKOFF * 2.0 ** (self.attempts - 1), LONGEST_BACKOFF)


@dataclass
class Model:
    """The micro-batches' copies by the number in their data, in the order of publication, and the dead letters."""

    copies: dict[int, Copy] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)

    def settle(self, now: float) -> None:
        """Leases that ran out: held back, or dead at the last."""
        for number, copy in list(self.copies.items()):
            if copy.ack_id is not None and copy.due_at <= now:
                copy.ack_id = None
                copy.due_at += copy.backoff()
                if copy.attempts >= ATTEMPTS:
                    self.bury(number)

    def bury(self, number: int) -> None:
        del self.copies[number]
        self.dead.add(number)

    def leased(self, received: Received, now: float) -> Copy | None:
        copy = self.copies.get(int(received.message.data))
        return copy if copy and copy.ack_id == received.ack_id and copy.due_at > now else None


class LocalBusMachine(RuleBasedStateMachine):
    deliveries: Bundle[Received] = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_750_000_000.0
        self.model = Model()
        self.published = 0
        self.bus = self.open()

    def open(self) -> LocalBus:
        return LocalBus(Path(self.folder.name) / "bus.sqlite", TOPOLOGY, clock=lambda: self.now)

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.bus.publish(KLINES, [Message(b"%d" % number) for number in numbers])
        self.model.copies.update({number: Copy() for number in numbers})
        self.published += count

    @rule(target=deliveries, most=st.integers(1, 5))
    def pull(self, most: int) -> object:
        received = self.bus.pull(MICROBATCH, max_messages=most, max_bytes=1000, wait=0)
        self.model.settle(self.now)
        ready = [number for number, copy in self.model.copies.items() if copy.due_at <= self.now]
        assert [int(one.message.data) for one in received] == ready[:most]
        for one in received:
            copy = self.model.copies[int(one.message.data)]
            copy.attempts, copy.due_at, copy.ack_id = copy.attempts + 1, self.now + LEASE, one.ack_id
            assert one.delivery_attempt == copy.attempts
        return multiple(*received)

    @rule(one=consumes(deliveries))
    def acknowledge(self, one: Received) -> None:
        self.bus.acknowledge(MICROBATCH, [one.ack_id])
        if self.model.leased(one, self.now):
            del self.model.copies[int(one.message.data)]

    @rule(one=consumes(deliveries))
    def reject(self, one: Received) -> None:
        self.bus.reject(MICROBATCH, [(one, "no")])
        copy = self.model.leased(one, self.now)
        if copy:
            copy.ack_id, copy.due_at = None, self.now + copy.backoff()
            if copy.attempts >= ATTEMPTS:
                self.model.bury(int(one.message.data))

    @rule(one=deliveries, seconds=st.sampled_from([0, 1, 300]))
    def extend(self, one: Received, seconds: float) -> None:
        self.bus.extend(MICROBATCH, [one.ack_id], seconds)
        copy = self.model.leased(one, self.now)
        if copy:
            copy.due_at = self.now + seconds
            copy.ack_id = one.ack_id if seconds else None

    @rule(seconds=st.sampled_from([1, 10, 60, 700, 5000]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def open_again(self) -> None:
        self.bus.close()
        self.bus = self.open()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """Deaths by lease are noticed by the next pull: until then the bus still counts them here."""
        dead = self.bus.backlog(DEAD_LETTERS_SUBSCRIPTION).messages
        assert self.bus.backlog(MICROBATCH).messages + dead == len(self.model.copies) + len(self.model.dead)

    def teardown(self) -> None:
        """Whatever is left is delivered in the end, or is a dead letter, and nothing else is."""
        left, letters = set(), set()
        for _ in range(ATTEMPTS + 1):
            self.now += timedelta(hours=1).total_seconds()
            self.model.settle(self.now)
            received = self.bus.pull(MICROBATCH, max_messages=10_000, max_bytes=1 << 30, wait=0)
            left |= {int(one.message.data) for one in received}
            self.bus.acknowledge(MICROBATCH, [one.ack_id for one in received])
        while received := self.bus.pull(DEAD_LETTERS_SUBSCRIPTION, max_messages=100, max_bytes=1 << 30, wait=0):
            letters |= {int(one.message.data) for one in received}
        assert (left, letters) == (set(self.model.copies), self.model.dead)
        self.bus.close()
        self.folder.cleanup()


TestLocalBus = LocalBusMachine.TestCase
TestLocalBus.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
