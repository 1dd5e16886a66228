"""How commands speak: tables and progress for people, JSON for scripts, errors as one line with the remedy."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ingestion.errors import KlinehouseError

# Where there is no terminal (a pipe, a log) nothing needs to fit a screen.
out = Console() if sys.stdout.isatty() else Console(width=240)
# Progress, banners and errors go here, so that standard output is the answer alone.
err = Console(stderr=True)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, default=_plain) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date | Path):
        return str(value)
    return str(value)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table, numbers to the right; on a screen too narrow for it, one block of lines per row (as psql does)."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if table.__rich_measure__(out, out.options.update(max_width=10_000)).maximum <= out.width:
        out.print(table)
    else:
        _print_blocks(title, columns, rows)


def _print_blocks(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if title:
        out.print(title, style="italic", markup=False)
    width = max(len(column) for column in columns)
    for row in rows:
        out.rule(style="dim")
        for column, value in zip(columns, row, strict=True):
            out.print(f"{column:<{width}}  {cell(value)}", markup=False, soft_wrap=True)


def cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def banner(simulation: str | None) -> None:
    """Say it wherever a person looks at simulated data."""
    if simulation:
        text = f"SIMULATED DATA: this home was filled from the simulated exchange ({simulation})."
        err.print(text, style="yellow", soft_wrap=True)


@contextmanager
def progress(total: int, description: str, *, quiet: bool) -> Iterator[Any]:
    """A progress bar; yields an object with `advance()` and `describe(text)`. Nothing is drawn when `quiet`."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )
    with bar:
        yield _Task(bar, bar.add_task(description, total=total))


class _Task:
    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task

    def advance(self) -> None:
        self._bar.advance(self._task)

    def describe(self, text: str) -> None:
        self._bar.update(self._task, description=text)


def print_error(error: KlinehouseError, *, as_json: bool) -> None:
    if as_json:
        details = {"kind": error.kind, "message": error.message, "remedy": error.remedy, "exit_code": error.exit_code}
        print_json({"error": details})
    else:
        # Not wrapped: one line, whatever the width of the terminal.
        err.print(f"[red]error:[/red] {_escaped(error.message)} {_escaped(error.remedy)}", soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
