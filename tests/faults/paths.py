"""The ways by which data becomes visible: how each is run, and what a home shows of it.

A step is run by its name with arguments that survive JSON. What it left is told by digests, so that two homes compare
equal when they hold the same data: times of our own clock (when something was fetched, found or refused) are left out.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from faults import flows, queues, traffic
from ingestion.history import run as history
from ingestion.klines import Month
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings, load_settings
from warehouse import build, engine, raw_source, serving
from warehouse.views import VIEW_FILE

_OUR_CLOCK = ("fetched_at", "ingested_at", "found_at", "refused_at", "asked_at")


@dataclass(frozen=True)
class Step:
    """One run of a path over a home. `settings` and `arguments` hold only what JSON can say."""

    path: str
    home: str
    settings: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Settings:
        return load_settings(home=self.home, **self.settings)


# What a home shows: a digest by the name of the thing.
State = dict[str, str]


def run(step: Step) -> None:
    """Do what the step says."""
    _RUN[step.path](step)


def visible(step: Step) -> State:
    """What is there for everyone to see: at every instant the old or the new, and whole."""
    return _VISIBLE[step.path](step)


def settled(step: Step) -> State:
    """The same, and what else has to be so when a run has ended."""
    return visible(step) | (_SETTLED[step.path](step) if step.path in _SETTLED else {})


# --- landing -----------------------------------------------------------------------------------------------------


def _land(step: Step) -> None:
    settings = step.load()
    history.land_history(settings, settings.series, [Month.parse(text) for text in step.arguments["months"]])


def _landed(step: Step) -> State:
    raw = Path(step.home) / "raw"
    for log in (Path(step.home) / "logs").rglob("execution_*.json"):
        json.loads(log.read_bytes())
    return {
        str(path.relative_to(raw)): _digest_of_file(path)
        for path in sorted(raw.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _digest_of_file(path: Path) -> str:
    """Of what a file says, apart from our own clock; what cannot be read says so."""
    try:
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read()
            about = _without_our_clock(json.loads((table.schema.metadata or {}).get(b"klinehouse", b"{}")))
            kept = [name for name in table.column_names if name not in _OUR_CLOCK]
            rows = pa.BufferOutputStream()
            csv.write_csv(table.select(kept), rows)
            return _digest(about, hashlib.sha256(rows.getvalue()).hexdigest())
        if path.suffix == ".json":
            return _digest(_without_our_clock(json.loads(path.read_bytes())))
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is torn
        return f"torn: {error}"


def _without_our_clock(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: _without_our_clock(value) for name, value in said.items() if name not in _OUR_CLOCK}
    return [_without_our_clock(value) for value in said] if isinstance(said, list) else said


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()


# --- the end of a build ------------------------------------------------------------------------------------------


def _end_build(step: Step) -> None:
    """What a build does with its database, without the start of dbt (seconds, for each of hundreds of points): the
    transaction with the statements that dbt compiled and ran for this window, over the rows that its query gave, and
    what Python notes before and after.

    Like `build_changed` it builds what is not noted as built, so that it makes up for a run that was killed.
    """
    settings = step.load()
    zone = RawZone(settings.raw_root)
    months = build.changed_months(settings)
    if not months:
        return
    with engine.writing(settings):
        with engine.connect(settings) as connection:
            versions = raw_source.prepare(connection, zone, settings.interval, months)
        with engine.connect(settings) as connection:
            rows = f"read_parquet({engine.text(step.arguments['rows'])})"
            connection.execute(f'create temporary table "{step.arguments["rows_table"]}" as from {rows}')
            connection.execute("begin")
            connection.execute(step.arguments["statements"])
            connection.execute("commit")
        with engine.connect(settings) as connection:
            raw_source.note_built(connection, months, versions)


def _built(step: Step) -> State:
    """Read from a copy: opening the file itself would already repair it."""
    settings = step.load()
    with tempfile.TemporaryDirectory() as folder:
        for path in settings.warehouse_path.parent.glob("klinehouse.duckdb*"):
            shutil.copy(path, folder)
        with duckdb.connect(Path(folder) / settings.warehouse_path.name) as connection:
            bars = _contents(connection, "crypto_analytics.market_data_unified")
            noted = 'select distinct symbol, "interval", month_start from bookkeeping.unpublished order by all'
            notes = _digest(connection.execute(noted).fetchall())
            built = raw_source.built_versions(connection)
    landed = raw_source.landed_versions(RawZone(settings.raw_root), settings.interval)
    current = sorted(str(month) for (symbol, month), version in landed.items() if built.get((symbol, month)) == version)
    return {"bars": bars, "notes": notes, "built from what has landed": " ".join(current)}


def _contents(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """How many rows a table has and what they are, in any order; a row that is there twice counts twice."""
    return str(connection.execute(f"select count(*), sum(hash(rows)) from {table} as rows").fetchone())


# --- publishing --------------------------------------------------------------------------------------------------


def _publish(step: Step) -> None:
    serving.publish(step.load())


def _show(step: Step) -> None:
    """Bars of the last days of April again, a month later: as if they had closed since."""
    settings = step.load()
    with serving.reading(settings) as served:
        later = ", ".join(f"{name} + interval 30 day as {name}" for name in ("open_time", "close_time"))
        days = "open_time >= timestamptz '2024-04-28' and open_time < timestamptz '2024-05-01'"
        fresh = served.sql(f"select * replace ({later}) from market_data_unified where {days}").to_arrow_table()
    with duckdb.connect() as connection:
        serving.show(settings, connection, serving.Served(settings), fresh)


def _served(step: Step) -> State:
    """Everything that a reader sees, as one; and files that nobody can read."""
    settings = step.load()
    files = settings.serving_dir.rglob("*.parquet")
    torn = [_torn(path) for path in files if not path.name.startswith(".")]
    return {"version": _version(settings)} | {name: why for found in torn for name, why in found.items()}


def _leftovers(step: Step) -> State:
    """The files of `serving/`, hidden ones too, and the notes of what is to be published."""
    settings = step.load()
    files = sorted(str(path) for path in settings.serving_dir.rglob("*") if path.is_file())
    return {"files": _digest(files), "notes": _notes_left(settings)}


def _torn(path: Path) -> dict[str, str]:
    try:
        pq.ParquetFile(path).read()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        return {str(path): f"torn: {error}"}
    return {}


def _version(settings: Settings) -> str:
    """Everything that a reader sees, as one."""
    if not (settings.serving_dir / VIEW_FILE).exists():
        return "nothing"
    with serving.reading(settings) as connection:
        views = connection.execute(
            "select view_name from duckdb_views() where schema_name = 'crypto_analytics' order by view_name"
        ).fetchall()
        tables = [(view, _contents(connection, f"crypto_analytics.{view}")) for (view,) in views]
        listed = connection.execute(
            "select table_name, sum(rows), count(*) from bookkeeping.files group by all order by all"
        ).fetchall()
    return _digest(tables, listed)


def _notes_left(settings: Settings) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for path in settings.warehouse_path.parent.glob("klinehouse.duckdb*"):
            shutil.copy(path, folder)
        with duckdb.connect(Path(folder) / settings.warehouse_path.name) as connection:
            return str(connection.execute("select count(*) from bookkeeping.unpublished").fetchone())


_RUN: dict[str, Callable[[Step], None]] = {
    "landing": _land,
    "building": _end_build,
    "publishing": _publish,
    "showing": _show,
    "queueing": lambda step: queues.publish(step.home),
    "consuming": lambda step: queues.consume(step.home),
    "collecting": lambda step: flows.collect(step.home),
    "streaming": lambda step: flows.stream(step.load()),
    "compacting": lambda step: flows.compact(step.home),
    "retiring": lambda step: flows.take_over(step.load()),
    "source": lambda step: traffic.source(step.load(), **step.arguments),
    "sink": lambda step: traffic.sink(step.load()),
}
_VISIBLE: dict[str, Callable[[Step], State]] = {
    "landing": _landed,
    "building": _built,
    "publishing": _served,
    "showing": _served,
    "queueing": lambda step: queues.visible(step.home),
    "consuming": lambda step: queues.visible(step.home),
    "collecting": lambda step: flows.collected(step.home),
    "streaming": lambda step: flows.streamed(step.home),
    "compacting": lambda step: flows.landed(step.home),
    "retiring": lambda step: flows.landed(step.home),
}
_SETTLED: dict[str, Callable[[Step], State]] = {
    "publishing": _leftovers,
    "consuming": lambda step: queues.left_over(step.home),
    "collecting": lambda step: flows.left_in_spool(step.home),
    "streaming": lambda step: flows.left_on_the_bus(step.home),
    "compacting": lambda step: flows.names_of_files(step.home),
    "retiring": lambda step: flows.differences(step.home),
}
