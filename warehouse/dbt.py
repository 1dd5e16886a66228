"""Running dbt: what it is called with, its manifest, and an in-process run.

Python knows the dbt project by its manifest only.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from filelock import FileLock

from ingestion.errors import KlinehouseError
from ingestion.settings import Settings

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult

PROJECT_DIR = Path(__file__).parent.parent / "dbt_project"
TARGET_DIR = PROJECT_DIR / "target"


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


def dbt_vars(window: Window | None, interval: str) -> dict[str, str]:
    """The variables of a dbt run; without a window, those that compile and parse need."""
    variables = {"base_interval": interval}
    if window is not None:
        variables |= {"window_start": f"{window.start:%Y-%m-%d %H:%M:%S+00}", "window_end": f"{window.end:%Y-%m-%d %H:%M:%S+00}"}
    return variables


def build_args(window: Window | None, interval: str, *, select: str | None = None, full_refresh: bool = False) -> list[str]:
    """The arguments of a production run. Unit tests test the code, not the data, so they are not part of it."""
    args = ["build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(dbt_vars(window, interval))]
    if select:
        args += ["--select", select]
    return [*args, "--full-refresh"] if full_refresh else args


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The environment that profiles.yml reads."""
    return {
        "KLINEHOUSE_WAREHOUSE_PATH": str(settings.warehouse_path),
        "KLINEHOUSE_WAREHOUSE_MEMORY_MB": str(settings.warehouse_memory_mb),
        "DBT_PROJECT_DIR": str(PROJECT_DIR),
        "DBT_PROFILES_DIR": str(PROJECT_DIR),
        "DBT_LOG_PATH": str(settings.log_dir / "dbt"),
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def run(settings: Settings, args: Sequence[str]) -> "dbtRunnerResult":
    """Run dbt in this process; raises BuildFailed naming the nodes that failed."""
    from dbt.cli.main import dbtRunner

    with _environment(dbt_environment(settings)):
        result = dbtRunner().invoke(["--quiet", "--no-use-colors", *args])
    if not result.success:
        raise BuildFailed(f"dbt {args[0]} failed: {_failures(result)}.", f"The log is {settings.log_dir}/dbt/dbt.log.")
    return result


def _failures(result: "dbtRunnerResult") -> str:
    if result.exception is not None:
        return " ".join(str(result.exception).split())
    nodes: Any = getattr(result.result, "results", [])
    bad = [node for node in nodes if node.status in ("error", "fail", "runtime error")]
    return "; ".join(f"{node.node.name}: {' '.join(str(node.message).split())}" for node in bad[:3]) or "see the log"


@cache
def manifest_path() -> Path:
    """The manifest of the dbt project, parsed anew when a file of the project is newer than it."""
    manifest = TARGET_DIR / "manifest.json"
    TARGET_DIR.mkdir(exist_ok=True)
    with FileLock(TARGET_DIR / ".parse.lock"):
        newest = max(path.stat().st_mtime for path in _project_files())
        if not manifest.exists() or manifest.stat().st_mtime < newest:
            run(Settings(), ["parse", "--vars", json.dumps(dbt_vars(None, "5m"))])
    return manifest


def _project_files() -> Iterator[Path]:
    for suffix in ("sql", "yml", "csv"):
        yield from (path for path in PROJECT_DIR.rglob(f"*.{suffix}") if TARGET_DIR not in path.parents)
