"""The local bus as steps that can be killed and run again, and what the home shows of its messages.

Publishing: two batches, each noted in `told/` when `publish` has returned. Consuming: each message lands as a file in
`landed/`, durably, and is acknowledged then; one of them is poison and is rejected until it is a dead letter. Run
again, both go on with what is left.
"""

import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, MONITORING, TOPOLOGY, Message
from ingestion.store import write_durably

# Two kills are two deliveries; the third must not be one too many, and poison needs no more.
TOPOLOGY_AT_ONCE = tuple(
    replace(
        one,
        min_backoff=timedelta(0),
        max_backoff=timedelta(0),
        max_delivery_attempts=3,
        retention=timedelta(days=36500),
    )
    for one in TOPOLOGY
)
_BATCHES = {"a": ("a1", "a2"), "b": ("b1",)}
_POISON = "a2"

State = dict[str, str]


def _path(home: str) -> Path:
    return Path(home) / "bus" / "bus.sqlite"


def publish(home: str) -> None:
    """Publish the batches that are not there yet."""
    with LocalBus(_path(home), TOPOLOGY_AT_ONCE) as bus:
        there = Held.by(home).of(MONITORING)
        for batch, texts in _BATCHES.items():
            if not there.keys() & set(texts):
                bus.publish(KLINES, [Message(text.encode(), {"batch": batch}) for text in texts])
            write_durably(Path(home) / "told" / batch, b"published")


def consume(home: str) -> None:
    """Until nothing is left. Time stands still meanwhile, and what a killed run had leased is there again."""
    now = max(time.time(), Held.by(home).leased_until + 1)
    with LocalBus(_path(home), TOPOLOGY_AT_ONCE, clock=lambda: now) as bus:
        while bus.backlog(MICROBATCH).messages:
            received = bus.pull(MICROBATCH, max_messages=3, max_bytes=1 << 20, wait=0)
            good = [one for one in received if one.message.data != _POISON.encode()]
            for one in good:
                write_durably(Path(home) / "landed" / one.message.data.decode(), one.message.data)
            bus.acknowledge(MICROBATCH, [one.ack_id for one in good])
            bus.reject(MICROBATCH, [(one, "poison") for one in received if one not in good])


def visible(home: str) -> State:
    """Batches by what is on the bus of them, and messages by what became of them; damage by its name."""
    held, state = Held.by(home), {}
    landed = {path.name for path in Path(home).glob("landed/[!.]*")}
    for batch, texts in _BATCHES.items():
        monitored = [text for text in texts if held.of(MONITORING)[text] == 1]
        if monitored or (Path(home) / "told" / batch).exists():
            state[f"batch {batch}"] = " ".join(monitored)
        for text in monitored:
            state[f"message {text}"] = _became(held, text, text in landed)
    return state | ({"damage": held.damage} if held.damage else {})


def _became(held: "Held", text: str, landed: bool) -> str:
    """A message that has landed may wait still: its acknowledgement comes after that."""
    waits, dead = held.of(MICROBATCH)[text], held.of(DEAD_LETTERS_SUBSCRIPTION)[text]
    if landed and waits <= 1:
        return "landed"
    return {(1, 0): "waits", (0, 1): "dead"}.get((waits, dead), f"{waits} times waiting, {dead} times dead")


def left_over(home: str) -> State:
    """What waits for the consumer still."""
    return {"left": str(Held.by(home).of(MICROBATCH).total())}


@dataclass(frozen=True)
class Held:
    """The messages that the subscriptions hold, by the name of the subscription, and all in their order; what is wrong
    with the file; and when the last lease ends, in seconds since 1970."""

    messages: dict[str, Counter[str]]
    order: tuple[str, ...] = ()
    damage: str = ""
    leased_until: float = 0.0

    def of(self, subscription: str) -> Counter[str]:
        return self.messages.get(subscription, Counter())

    @classmethod
    def by(cls, home: str) -> "Held":
        """Read from a copy: to open the file itself would already repair it."""
        if not _path(home).exists():
            return cls({})
        with tempfile.TemporaryDirectory(dir=Path(home).parent) as folder:
            for file in _path(home).parent.glob("bus.sqlite*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder) / _path(home).name)) as db:
                made = db.execute("select count(*) from sqlite_master where name = 'deliveries'").fetchone()[0]
                return cls._read(db) if made else cls({})

    @classmethod
    def _read(cls, db: sqlite3.Connection) -> "Held":
        held: dict[str, Counter[str]] = {}
        rows = db.execute(
            "select s.name, cast(m.data as text) from deliveries d join messages m on m.id = d.message "
            "join subscriptions s on s.id = d.subscription"
        )
        for name, text in rows:
            held.setdefault(name, Counter())[text] += 1
        order = db.execute("select cast(data as text) from messages order by id").fetchall()
        (until,) = db.execute("select coalesce(max(due_at), 0) / 1e6 from deliveries").fetchone()
        (check,) = db.execute("pragma integrity_check").fetchone()
        wrong = {
            "contents that nobody needs": "select id from messages except select message from deliveries",
            "deliveries without a content": "select message from deliveries except select id from messages",
        }
        found = [] if check == "ok" else [check]
        found += [what for what, query in wrong.items() if db.execute(query).fetchall()]
        return cls(held, tuple(text for (text,) in order), ", ".join(found), until)
