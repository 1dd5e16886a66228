"""Seeded mutants: mistakes against durability, put into the project's own code in a child process.

A mutant is an edit of the source of one module, so that it says itself what is wrong with it, and an edit that fits no
more fails. The fault tests are believed because they catch every one.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from faults.paths import Step


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new`, in the source of a module or (where `module` is empty) in the statements that dbt compiled.
    It shows in the scenario `form`."""

    form: str
    module: str
    old: str
    new: str


_RAW, _STORE, _SERVING = "ingestion.raw_zone", "ingestion.store", "warehouse.serving"
_SWAP = "_swap(settings, connection, served, files)"

LANDING_MUTANTS = {
    "no fsync of a file": Mutant("first months", _STORE, "            os.fsync(file.fileno())\n", ""),
    "no fsync of the folder of a name": Mutant("first months", _STORE, "        sync_folder(path.parent)\n", ""),
    "no fsync of the folder of a new folder": Mutant(
        "first months", _STORE, "        sync_folder(made.parent)\n", "        pass\n"
    ),
    "written under its final name": Mutant(
        "files that changed",
        _STORE,
        "    make_folder(path.parent)\n",
        "    make_folder(path.parent)\n    path.write_bytes(content)\n    return\n",
    ),
    "a refusal noted before the file is kept": Mutant(
        "bad months",
        _RAW,
        """        self._write(path, content)
        kept = {**note, "name": name, "bytes": len(content), "refused_at": datetime.now(UTC).isoformat()}
        self._write(f"{path}{_REASON}", json.dumps(kept, indent=1).encode())
""",
        """        kept = {**note, "name": name, "bytes": len(content), "refused_at": datetime.now(UTC).isoformat()}
        self._write(f"{path}{_REASON}", json.dumps(kept, indent=1).encode())
        self._write(path, content)
""",
    ),
    "differences kept twice": Mutant(
        "files that changed",
        _RAW,
        'first.rename_columns([*keys, "found_at"]).select(DIFFERENCE_SCHEMA.names).sort_by("open_time")',
        'every.sort_by("open_time")',
    ),
    "checksums not compared": Mutant(
        "bad months",
        "ingestion.binance.archive",
        "    if checksum is None:\n",
        "    return None\n    if checksum is None:\n",
    ),
    "an error swallowed": Mutant(
        "a bad file in a running month",
        "ingestion.history.month",
        "        except BadArchiveFile as bad:\n",
        "        except BadArchiveFile as bad:\n            return False\n",
    ),
}

BUILDING_MUTANTS = {
    "delete and insert in two transactions": Mutant(
        "a month built again", "", '    insert into "klinehouse"', '    commit; begin; insert into "klinehouse"'
    ),
    "noted as built before it is": Mutant(
        "a month built again",
        "faults.paths",
        "            versions = raw_source.prepare(connection, zone, settings.interval, months)\n",
        "            versions = raw_source.prepare(connection, zone, settings.interval, months)\n"
        "            raw_source.note_built(connection, months, versions)\n",
    ),
    "the view file written in place": Mutant(
        "months that changed",
        "warehouse.views",
        "        temporary.rename(target)\n",
        "        target.write_bytes(temporary.read_bytes())\n",
    ),
    "notes forgotten before the swap": Mutant(
        "months that changed",
        _SERVING,
        f"        version = {_SWAP}\n    _forget(connection, changes)\n",
        f"        _forget(connection, changes)\n        version = {_SWAP}\n",
    ),
    "old files removed before the swap": Mutant(
        "months that changed",
        _SERVING,
        "    version = swap_views(",
        "    collect_garbage(settings, files)\n    version = swap_views(",
    ),
}

_FILE, _QUEUE = "ingestion.bus.local_file", "ingestion.bus.local_queue"
_TWO_TRANSACTIONS = '        self._db.execute("commit")\n        self._db.execute("begin immediate")\n'

QUEUE_MUTANTS = {
    "the log not synced at each commit": Mutant(
        "messages published", _FILE, "pragma synchronous = full", "pragma synchronous = normal"
    ),
    "nothing synced": Mutant("messages published", _FILE, "pragma synchronous = full", "pragma synchronous = off"),
    "no fsync of the folder of the queue": Mutant(
        "messages published", _FILE, "        make_folder(path.parent)\n", "        path.parent.mkdir(exist_ok=True)\n"
    ),
    "a message and its copies in two transactions": Mutant(
        "messages published",
        _QUEUE,
        '        self._db.executemany(\n            "insert into deliveries',
        _TWO_TRANSACTIONS + '        self._db.executemany(\n            "insert into deliveries',
    ),
    "acknowledged when pulled": Mutant(
        "messages consumed",
        _QUEUE,
        '"update deliveries set attempts = attempts + 1, due_at = ?, leased = 1 "\n            "where ',
        '"delete from deliveries where ? and ',
    ),
    "a dead letter in a transaction of its own": Mutant(
        "messages consumed",
        _QUEUE,
        "            self.put(\n                subscription.dead_letter_topic",
        '            drop = "delete from deliveries where message = ? and subscription = ?"\n'
        "            self._db.execute(drop, [number, self._numbers[subscription.name]])\n"
        '            self._db.execute("commit")\n            self._db.execute("begin immediate")\n'
        "            self.put(\n                subscription.dead_letter_topic",
    ),
    "a content forgotten that another subscription needs": Mutant(
        "messages consumed",
        _QUEUE,
        " and not exists (select 1 from deliveries where message = ?1)",
        "",
    ),
}

_STREAMING, _MICROBATCH, _ZONE = "warehouse.streaming", "ingestion.microbatch", "ingestion.stream_zone"
_RETIREMENT = "ingestion.retirement"
_SPOOL, _PUBLISHER = "ingestion.collector.spool", "ingestion.collector.publisher"
_LAND = "            land(batch, self._zone)\n"

LIVE_MUTANTS = {
    "no fsync of a file of the stream": Mutant("messages landed", _STORE, "            os.fsync(file.fileno())\n", ""),
    "no fsync of the folder of a file of the stream": Mutant(
        "messages landed", _STORE, "        sync_folder(path.parent)\n", ""
    ),
    "a file of the stream written under its final name": Mutant(
        "messages landed",
        _STORE,
        "    make_folder(path.parent)\n",
        "    make_folder(path.parent)\n    path.write_bytes(content)\n    return\n",
    ),
    "acknowledged before landed": Mutant(
        "messages landed", _STREAMING, _LAND, "            finish(self._bus, batch)\n" + _LAND
    ),
    "acknowledged before visible": Mutant(
        "messages landed", _STREAMING, _LAND, _LAND + "            finish(self._bus, batch)\n"
    ),
    "what is no kline acknowledged": Mutant(
        "messages landed",
        _MICROBATCH,
        "[received.ack_id for received in batch.accepted]",
        "batch.ack_ids",
    ),
    "a bar that came twice kept twice": Mutant(
        "messages landed",
        _ZONE,
        "    return rows.filter(",
        "    return rows\n    return rows.filter(",
    ),
    "files named by chance": Mutant(
        "messages landed", _ZONE, "hashlib.sha256(content)", "hashlib.sha256(str(datetime.now(UTC)).encode())"
    ),
    "files removed before they are put together": Mutant(
        "files put together",
        _ZONE,
        "        written = self.write(rows) if rows.num_rows else []\n",
        "        for file in files:\n            self._remove(self._path(file))\n"
        "        written = self.write(rows) if rows.num_rows else []\n",
    ),
    "what only the stream has dropped": Mutant(
        "history takes over",
        _RETIREMENT,
        'rows.filter(pc.invert(pc.is_in(rows["open_time"], same["open_time"].combine_chunks())))',
        "rows.slice(0, 0)",
    ),
    "dropped before it was compared": Mutant(
        "history takes over",
        _RETIREMENT,
        "    rows = one_row_per_bar(streamed.read(file) for file in files)\n",
        "    rows = one_row_per_bar(streamed.read(file) for file in files)\n"
        "    for file in files:\n        streamed._remove(streamed._path(file))\n",
    ),
    "removed from the spool before the bus has it": Mutant(
        "bars collected",
        _PUBLISHER,
        "                self._bus.publish(KLINES, [one.message for one in batch])\n"
        "                self._done(batch)\n",
        "                self._done(batch)\n"
        "                self._bus.publish(KLINES, [one.message for one in batch])\n",
    ),
    "the spool's log not synced at each commit": Mutant(
        "bars collected", _SPOOL, "pragma synchronous = full", "pragma synchronous = normal"
    ),
    "no fsync of the folder of the spool": Mutant(
        "bars collected", _SPOOL, "make_folder(path.parent)", "path.parent.mkdir(parents=True, exist_ok=True)"
    ),
    "watermarks in a transaction of their own": Mutant(
        "bars collected",
        _SPOOL,
        '            connection.executemany("insert into messages',
        '            connection.executemany("insert or replace into watermarks values (?, ?, ?)", marks)\n'
        '            connection.execute("commit")\n            connection.execute("begin immediate")\n'
        '            connection.executemany("insert into messages',
    ),
    "the newest of the spool first": Mutant("bars collected", _SPOOL, "order by id limit", "order by id desc limit"),
}


def applied(name: str, step: Step) -> Step:
    """Put a mutant into this process, for good; returns the step to run."""
    mutant = (LANDING_MUTANTS | BUILDING_MUTANTS | QUEUE_MUTANTS | LIVE_MUTANTS)[name]
    if not mutant.module:
        statements = _edited(mutant, step.arguments["statements"])
        return replace(step, arguments=step.arguments | {"statements": statements})
    module = importlib.import_module(mutant.module)
    assert module.__file__ is not None
    mutated = ModuleType(mutant.module)
    source = _edited(mutant, Path(module.__file__).read_text())
    exec(compile(source, module.__file__, "exec"), mutated.__dict__)  # noqa: S102 - our own source
    _transplant(vars(module), vars(mutated), mutant.module)
    return step


def _edited(mutant: Mutant, text: str) -> str:
    if text.count(mutant.old) != 1:
        raise ValueError(f"A mutant does not fit: {mutant.old!r} is {text.count(mutant.old)} times in {mutant.module}.")
    return text.replace(mutant.old, mutant.new)


def _transplant(into: Mapping[str, Any], source: Mapping[str, Any], module: str) -> None:
    """Give the functions that others hold already the code of the mutated ones, those of classes too."""
    for name, thing in into.items():
        other = source.get(name)
        if getattr(thing, "__module__", None) != module:
            continue
        if isinstance(thing, FunctionType) and isinstance(other, FunctionType):
            thing.__code__ = other.__code__
        elif isinstance(thing, type) and isinstance(other, type):
            _transplant(vars(thing), vars(other), module)
