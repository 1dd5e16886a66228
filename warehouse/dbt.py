"""Running dbt: what it is called with, its manifest, and an in-process run.

Python knows the dbt project by its manifest only.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from ingestion.errors import ConfigurationError, KlinehouseError
from ingestion.klines import INTERVAL_MICROS
from ingestion.settings import Settings

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest

PROJECT_DIR = Path(__file__).parent.parent / "dbt_project"
_DAY_MICROS = 86_400_000_000


class BuildFailed(KlinehouseError):
    """dbt ended with an error, or a test found rows."""

    kind = "build_failed"


@dataclass(frozen=True)
class Window:
    """The half-open window of a run, `[start, end)`; whole UTC days, so that it never cuts a derived bar."""

    start: datetime
    end: datetime

    @classmethod
    def around(cls, start: datetime, end: datetime) -> "Window":
        """The smallest run window that holds `[start, end)`."""
        first = datetime.combine(start.astimezone(UTC).date(), time(), UTC)
        last = datetime.combine(end.astimezone(UTC).date(), time(), UTC)
        return cls(first, last if last >= end else last + timedelta(days=1))


def build_args(
    window: Window | None, interval: str, *, select: str | None = None, full_refresh: bool = False
) -> list[str]:
    """The arguments of a production run; without a window it is about tables that have none.

    Unit tests test the code, not the data, so they are not part of it.
    """
    args = ["build", "--exclude-resource-type", "unit_test", "--vars", _variables(interval)]
    if window is not None:
        args += ["--event-time-start", f"{window.start:%Y-%m-%d}", "--event-time-end", f"{window.end:%Y-%m-%d}"]
    if select:
        args += ["--select", select]
    return [*args, "--full-refresh"] if full_refresh else args


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


def run(settings: Settings, args: Sequence[str]) -> int:
    """Run dbt in this process, on a manifest parsed once; raises BuildFailed naming the nodes that failed.

    Returns how many nodes ran.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    # A copy (20 ms), because a run leaves marks: an ephemeral model that was put into a query once is taken for done,
    # and is missing from the next run's query.
    manifest = _manifest().deepcopy()
    with environment(settings):
        try:
            result = dbtRunner(manifest=manifest).invoke(["--quiet", "--no-use-colors", *args])
        finally:
            # dbt-duckdb keeps the file open, and locked, as long as the process lives.
            DuckDBConnectionManager.close_all_connections()
    _raise_if_failed(result, args[0])
    return len(getattr(result.result, "results", []))


@cache
def _manifest() -> "Manifest":
    """The parsed project of this process: a run that is given it does not parse again (5 s)."""
    from dbt.cli.main import dbtRunner

    with FileLock(PROJECT_DIR / ".parse.lock"), _environment({"DBT_PROJECT_DIR": str(PROJECT_DIR)}):
        result = dbtRunner().invoke(["--quiet", "parse", "--profiles-dir", str(PROJECT_DIR)])
    _raise_if_failed(result, "parse")
    return cast("Manifest", result.result)


def manifest_path(settings: Settings) -> Path:
    """`manifest.json` for this home, parsed anew when a file of the project is newer.

    It lies in the home because dbt parses again whenever the environment that profiles.yml reads is another.
    """
    target = target_dir(settings)
    target.mkdir(parents=True, exist_ok=True)
    manifest = target / "manifest.json"
    with FileLock(target / ".parse.lock"):
        newest = max(path.stat().st_mtime for path in _project_files())
        if not manifest.exists() or manifest.stat().st_mtime < newest:
            from dbt.cli.main import dbtRunner  # three seconds to import, and most starts do not parse

            with environment(settings):
                result = dbtRunner().invoke(["--quiet", "parse", "--vars", _variables(settings.interval)])
            _raise_if_failed(result, "parse")
    return manifest


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
