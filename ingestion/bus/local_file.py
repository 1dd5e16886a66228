"""The file of the local bus: made, recognised, opened with full durability; what is wrong with it as BusUnavailable.

A message lies in `messages` once; each subscription that has not acknowledged it has a row in `deliveries`. A delivery
is ready (`due_at` is null), leased until `due_at`, or held back until `due_at` after a rejection or a lease that ran
out. Times are microseconds since 1970.
"""

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingestion.errors import BusUnavailable
from ingestion.store import make_folder

APPLICATION_ID = 0x4B4C4842  # "KLHB", in the header of the file
SCHEMA_VERSION = 1
# Seconds to wait for other processes; theirs are transactions of milliseconds.
BUSY_TIMEOUT = 30.0

_SCHEMA = f"""
begin immediate;
create table subscriptions (id integer primary key, name text not null unique);
create table messages (
    id integer primary key autoincrement,
    published_at integer not null,
    data blob not null,
    attributes blob not null,
    checksum integer not null
);
create table deliveries (
    message integer not null,
    subscription integer not null,
    attempts integer not null,
    due_at integer,
    leased integer not null,
    rejection text,
    primary key (message, subscription)
) without rowid;
create index ready on deliveries (subscription, message) where due_at is null;
create index waiting on deliveries (subscription, due_at) where due_at is not null;
pragma application_id = {APPLICATION_ID};
pragma user_version = {SCHEMA_VERSION};
commit;
"""
_AGAIN = (
    "Stop what uses it, move it away together with its -wal and -shm files, and run `klinehouse bus init`; "
    "`klinehouse heal` fetches the bars that were in it."
)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and make it where there is none. The connection is for one thread at a time."""
    with explained(path):
        make_folder(path.parent)
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _open(db, path)
        except BaseException:
            db.close()
            raise
        return db


def _open(db: sqlite3.Connection, path: Path) -> None:
    empty = _require_ours(db, path)
    _use_wal(db, path)
    # NORMAL loses acknowledged messages at a power cut.
    db.execute("pragma synchronous = full")
    db.execute("pragma fullfsync = on")
    # What a peak left of the log is given back.
    db.execute("pragma journal_size_limit = 67108864")
    if empty:
        _make(db)
        _require_ours(db, path)


def _require_ours(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is still empty. Raises BusUnavailable for a file of something else or of a later version."""
    db.execute("begin")  # one look: another process may be making the file
    (application,), (version,), (tables,) = (
        db.execute(question).fetchone()
        for question in ("pragma application_id", "pragma user_version", "select count(*) from sqlite_master")
    )
    db.execute("rollback")
    if application == APPLICATION_ID and version == SCHEMA_VERSION:
        return False
    if application == APPLICATION_ID:
        raise BusUnavailable(
            f"{path} has version {version} of the queue, this Klinehouse reads {SCHEMA_VERSION}.",
            "Use the Klinehouse that made it, or drain it with that one and delete it.",
        )
    if application or version or tables:
        raise BusUnavailable(f"{path} is a database of something else, not Klinehouse's queue.", _AGAIN)
    return True


def _use_wal(db: sqlite3.Connection, path: Path) -> None:
    """Several processes that open a new file at once collide here, and SQLite does not wait for each other's turn."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            mode = db.execute("pragma journal_mode = wal").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise BusUnavailable(
            f"{path} cannot have a write-ahead log: the journal stays {mode!r}.",
            "KLINEHOUSE_HOME must be on a local disk, not on a network share.",
        )


def _make(db: sqlite3.Connection) -> None:
    try:
        db.executescript(_SCHEMA)
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.rollback()
        # Another process made it between our look and our turn.
        if db.execute("pragma application_id").fetchone()[0] != APPLICATION_ID:
            raise


def numbered(db: sqlite3.Connection, path: Path, subscriptions: Collection[str]) -> dict[str, int]:
    """The number of each subscription in the file; new ones are added."""
    with explained(path):
        numbers: dict[str, int] = dict(db.execute("select name, id from subscriptions"))
        if not numbers.keys() >= set(subscriptions):
            add = "insert into subscriptions (name) values (?) on conflict do nothing"
            db.execute("begin immediate")
            db.executemany(add, [(name,) for name in subscriptions])
            db.execute("commit")
            numbers = dict(db.execute("select name, id from subscriptions"))
    if not numbers.keys() >= set(subscriptions):
        raise BusUnavailable(f"{path} is damaged: its subscriptions are {', '.join(map(str, numbers))}.", _AGAIN)
    return numbers


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the disk as BusUnavailable, with the file and what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise BusUnavailable(f"{path} is damaged, or no queue of Klinehouse: {error}.", _AGAIN) from error
        if code in _BUSY:
            raise BusUnavailable(
                f"{path} has been locked by another process for {BUSY_TIMEOUT:g} s.",
                "End the process that holds it (`fuser` names it) and try again.",
            ) from error
        raise BusUnavailable(f"{path}: {error}.", _DISK) from error
    except UnicodeDecodeError as error:  # of a message of SQLite's, which quotes the damage
        raise BusUnavailable(f"{path} is damaged.", _AGAIN) from error
    except OSError as error:
        raise BusUnavailable(f"{error.filename or path}: {error.strerror or error}.", _DISK) from error


_DISK = "Check KLINEHOUSE_HOME, its permissions and the space left; what was acknowledged is kept."
