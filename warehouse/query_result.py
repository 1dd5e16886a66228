"""The answer to a query, of either engine."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QueryResult:
    """Names and rows of an answer."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
