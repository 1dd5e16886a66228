"""Running dbt: what it is called with, its manifest, and an in-process run.

Python knows the dbt project by its manifest only.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ingestion.errors import ConfigurationError, KlinehouseError
from ingestion.klines import INTERVAL_MICROS
from ingestion.settings import Settings, load_settings
from ingestion.store import write_durably
from warehouse.remote_files import registered

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest

PROJECT_DIR = Path(__file__).parent.parent / "dbt_project"
_DAY_MICROS = 86_400_000_000
_BARS = "market_data_unified"


class BuildFailed(KlinehouseError):
    """dbt ended with an error, or a test found rows."""

    kind = "build_failed"


@dataclass(frozen=True)
class Window:
    """The half-open window of a run, `[start, end)`: whole bars of the base interval."""

    start: datetime
    end: datetime

    @classmethod
    def around(cls, start: datetime, end: datetime) -> "Window":
        """The smallest window of whole UTC days that holds `[start, end)`."""
        first = datetime.combine(start.astimezone(UTC).date(), time(), UTC)
        last = datetime.combine(end.astimezone(UTC).date(), time(), UTC)
        return cls(first, last if last >= end else last + timedelta(days=1))


def build_args(
    window: Window | None, interval: str, *, select: str | None = None, full_refresh: bool = False
) -> list[str]:
    """The arguments of a production run; without a window it is about tables that have none.

    Unit tests test the code, not the data, so they are not part of it.
    """
    args = ["build", "--exclude-resource-type", "unit_test", "--exclude", "tag:unit", "--vars", _variables(interval)]
    if window is not None:
        args += _event_times(window)
    if select:
        args += ["--select", select]
    return [*args, "--full-refresh"] if full_refresh else args


def tidy_args(window: Window, interval: str) -> list[str]:
    """The arguments of a run over everything else that bars change: gaps, and the dimensions."""
    models = ["int_klines_gaps", "klines_gaps", "int_bars_of_days", "dim_dates", "dim_symbols"]
    return ["--no-write-json", "run", "--select", *models, "--vars", _variables(interval), *_event_times(window)]


def compile_bars(settings: Settings) -> None:
    """Compile the main model, which writes nothing."""
    with redirect_stdout(io.StringIO()):  # what is compiled is printed, however quiet dbt is to be
        run(settings, ["--no-write-json", "compile", "--select", _BARS, "--vars", _variables(settings.interval)])


@cache
def live_query(interval: str) -> str:
    """The query of `market_data_live`, as it is over an empty warehouse on DuckDB: it reads all that it is given."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        scratch = load_settings(home=Path(folder), target="duckdb", interval=interval)
        scratch.warehouse_path.parent.mkdir()
        run(scratch, ["--no-write-json", "compile", "--select", "market_data_live", "--vars", _variables(interval)])
        compiled = target_dir(scratch) / "compiled" / "klinehouse" / "models" / "marts" / "market_data_live.sql"
        return compiled.read_text()


def make_tables(settings: Settings, window: Window) -> None:
    """Make all tables of a warehouse that has none, and test nothing."""
    kinds = ["--resource-type", "seed", "--resource-type", "model"]
    run(settings, ["build", *kinds, "--vars", _variables(settings.interval), *_event_times(window)])


def _event_times(window: Window) -> list[str]:
    start, end = (f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" for at in (window.start, window.end))
    return ["--event-time-start", start, "--event-time-end", end]


def _variables(interval: str) -> str:
    if not 0 < (INTERVAL_MICROS[interval] or 0) <= _DAY_MICROS:
        raise ConfigurationError(
            f"The warehouse cannot start from interval {interval}.", "Set KLINEHOUSE_INTERVAL to 1d or shorter."
        )
    return json.dumps({"base_interval": interval})


@contextmanager
def environment(settings: Settings) -> Iterator[None]:
    """The environment in which dbt, in this process or in a child, works on this home. Not for several threads."""
    values = {
        "KLINEHOUSE_TARGET": settings.target,
        "KLINEHOUSE_BIGQUERY_PROJECT": settings.bigquery_project,
        "KLINEHOUSE_BIGQUERY_LOCATION": settings.bigquery_location,
        "KLINEHOUSE_BIGQUERY_PRIORITY": settings.bigquery_priority,
        "KLINEHOUSE_BIGQUERY_BUILD_BYTES": str(settings.bigquery_build_gb << 30),
        "KLINEHOUSE_WAREHOUSE_PATH": str(settings.warehouse_path),
        "KLINEHOUSE_WAREHOUSE_MEMORY_MB": str(settings.warehouse_memory_mb),
        "DBT_PROJECT_DIR": str(PROJECT_DIR),
        "DBT_PROFILES_DIR": str(PROJECT_DIR),
        "DBT_TARGET_PATH": str(target_dir(settings)),
        # A test of two tables runs with the later one: dimensions are tested against bars, not the other way round.
        "DBT_INDIRECT_SELECTION": "buildable",
        "DBT_LOG_PATH": str(settings.log_dir / "dbt"),
    }
    with _environment(values):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def run(settings: Settings, args: Sequence[str], on_result: Callable[[dict[str, Any]], None] | None = None) -> int:
    """Run dbt in this process, on a manifest parsed once; raises BuildFailed naming the nodes that failed.

    `on_result` hears dbt's structured log events (`{"info": {"name": ...}, "data": ...}`) as they come, from dbt's
    threads, and then dbt says on standard output what it does. Returns how many nodes ran.
    """
    return _run(settings, _manifest(_parsed_as(settings)), args, on_result)


def run_live(settings: Settings, window: Window) -> None:
    """Run the main model over bars that have just closed, in this process; raises BuildFailed.

    Its rows were checked when they were landed; the tests run when history builds the same months. Writing the manifest
    and the results would take a third of dbt's own time.
    """
    models = _BARS if settings.target == "duckdb" else f"{_BARS} market_data_live"
    args = ["run", "--select", models, "--vars", _variables(settings.interval), *_event_times(window)]
    # On BigQuery rows go through a table of their own, which is made where the shape is checked.
    manifest = _live_manifest() if settings.target == "duckdb" else _manifest(_parsed_as(settings))
    _run(settings, manifest, ["--no-write-json", "--cache-selected-only", *args])


def _run(
    settings: Settings,
    manifest: "Manifest",
    args: Sequence[str],
    on_result: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    from dbt.cli.main import dbtRunner
    from dbt_common.events.functions import msg_to_dict

    # The same manifest each time. (With ephemeral models it would have to be a copy: one that was put into a query once
    # is taken for done, and is missing from the next run's query.)
    runner = dbtRunner(manifest, [lambda event: on_result(msg_to_dict(event))] if on_result else None)
    # The log goes without what debugs dbt itself: writing it is a fifth of dbt's own time. The SQL is in target_dir.
    # On standard output there is our own answer, perhaps as JSON; what fails is in the error.
    flags = ["--no-use-colors", "--log-level-file", "info", *([] if on_result else ["--log-level", "none"])]
    heard = nullcontext() if on_result else _unheard()
    with environment(settings), registered(settings), heard:
        try:
            result = runner.invoke([*flags, *args])
        finally:
            if settings.target == "duckdb":
                _close_file()
    _raise_if_failed(result, next(word for word in args if not word.startswith("-")))
    return len(getattr(result.result, "results", []))


@contextmanager
def _unheard() -> Iterator[None]:
    """Saves a run that nobody listens to a fifth of its time, if it is a short one.

    dbt makes an event of whatever it does, some before and after each query, before it looks whether anybody wants it.
    Each time it looks through everything that can be imported for its plugins, unless it keeps what it found, as in its
    own tests; and for each flag of an adapter through the whole stack, with its sources, for the module to warn of.
    """
    from dbt_common import tests as caches
    from dbt_common.behavior_flags import BehaviorFlagRendered as Flag
    from dbt_common.events import event_manager_client as client
    from dbt_common.events.base_types import BaseEvent, EventLevel
    from dbt_common.events.event_manager import EventManager

    class WithoutDebug(EventManager):
        def fire_event(self, e: BaseEvent, level: EventLevel | None = None, *args: Any, **options: Any) -> None:
            if (level or e.level_tag()) is not EventLevel.DEBUG:
                super().fire_event(e, level, *args, **options)

    before, module_of = client.get_event_manager(), Flag.__dict__["_default_source"]
    client.ctx_set_event_manager(WithoutDebug())
    setattr(Flag, "_default_source", staticmethod(lambda: "dbt"))  # noqa: B010 - a type checker takes no assignment
    caches.enable_test_caching()
    try:
        yield
    finally:
        caches.disable_test_caching()
        setattr(Flag, "_default_source", module_of)  # noqa: B010
        client.ctx_set_event_manager(before)


def _close_file() -> None:
    """dbt-duckdb keeps the file open, and locked, as long as the process lives."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()


_ParsedAs = tuple[str, str]


def _parsed_as(settings: Settings) -> _ParsedAs:
    """What parsing depends on besides the project's files: the target, and the Google Cloud project that every table is
    said to be in."""
    return settings.target, settings.bigquery_project if settings.target == "bigquery" else ""


@cache
def _manifest(parsed_as: _ParsedAs) -> "Manifest":
    """The parsed project: a run that is given it does not parse again."""
    return _read_manifest(parsed_as)


def _read_manifest(parsed_as: _ParsedAs) -> "Manifest":
    """One of its own for each caller. (`Manifest.deepcopy` fails where a source is disabled.)"""
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    parsed = _parsed(parsed_as, "partial_parse.msgpack").read_bytes()
    return Manifest.from_msgpack(parsed, decoder=extended_mashumuro_decoder)


@cache
def _live_manifest() -> "Manifest":
    """The project for runs that follow each other in seconds. The shape of the table was checked when it was made:
    asking the engine for it each time takes a fifth of such a run."""
    manifest = _read_manifest(("duckdb", ""))
    model: Any = manifest.nodes[f"model.klinehouse.{_BARS}"]
    model.contract.enforced = model.config.contract.enforced = False
    model.config.on_schema_change = "ignore"
    return manifest


def _parsed(parsed_as: _ParsedAs, name: str) -> Path:
    """A file of what dbt makes of the project: `manifest.json`, or `partial_parse.msgpack`, dbt's own copy of it.

    Parsing takes 5 s, and 1.6 s where dbt itself finds that nothing changed; reading the copy takes 0.3 s. So the files
    are kept beside the project, in a folder whose name says what they were parsed from.
    """
    told = "-".join(filter(None, parsed_as))
    kept = PROJECT_DIR / "target" / f"parsed-{told}-{_fingerprint()}"
    with FileLock(PROJECT_DIR / ".parse.lock"):
        if not (kept / name).exists():
            for outdated in kept.parent.glob(f"parsed-{told}-{'?' * 16}"):
                shutil.rmtree(outdated)
            with tempfile.TemporaryDirectory() as folder:
                _parse(parsed_as, folder)
                for file in ("manifest.json", "partial_parse.msgpack"):
                    write_durably(kept / file, Path(folder, file).read_bytes())
    return kept / name


def _parse(parsed_as: _ParsedAs, folder: str) -> None:
    from dbt.cli.main import dbtRunner  # two seconds to import, and most starts do not parse

    places = {"DBT_PROJECT_DIR": str(PROJECT_DIR), "DBT_PROFILES_DIR": str(PROJECT_DIR)}
    target, project = parsed_as
    about = {"KLINEHOUSE_TARGET": target} | ({"KLINEHOUSE_BIGQUERY_PROJECT": project} if project else {})
    with _environment(places | about | {"DBT_TARGET_PATH": folder, "DBT_LOG_PATH": folder}):
        _raise_if_failed(dbtRunner().invoke(["--quiet", "parse"]), "parse")


def _fingerprint() -> str:
    """A hash of all that parsing depends on: the project's files, and dbt's versions, whose macros are parsed too."""
    found = hashlib.sha256()
    for package in ("dbt-core", "dbt-adapters", "dbt-common", "dbt-duckdb", "dbt-bigquery"):
        found.update(f"{package} {version(package)}\n".encode())
    for path in sorted(_project_files()):
        found.update(f"{path.relative_to(PROJECT_DIR)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def manifest_path(settings: Settings) -> Path:
    """`manifest.json` of the project; raises ConfigurationError when it cannot start from the settings' interval."""
    _variables(settings.interval)
    return _parsed(_parsed_as(settings), "manifest.json")


def target_dir(settings: Settings) -> Path:
    """Where dbt writes what it compiled and found."""
    return settings.home / "dbt"


def _raise_if_failed(result: "dbtRunnerResult", command: str) -> None:
    if not result.success:
        raise BuildFailed(f"dbt {command} failed: {_failures(result)}.", "logs/dbt/dbt.log in the home has all of it.")


def _failures(result: "dbtRunnerResult") -> str:
    if result.exception is not None:
        return " ".join(str(result.exception).split())
    nodes: Any = getattr(result.result, "results", [])
    bad = [node for node in nodes if node.status in ("error", "fail", "runtime error")]
    return "; ".join(f"{node.node.name}: {' '.join(str(node.message).split())}" for node in bad[:3]) or "see the log"


def _project_files() -> Iterator[Path]:
    for folder in ("models", "macros", "seeds", "tests"):
        yield from (path for path in (PROJECT_DIR / folder).rglob("*") if path.is_file())
    yield from PROJECT_DIR.glob("*.yml")
