"""Measures of the warehouse for metadata and checks, by target."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any

import pyarrow as pa

from ingestion.klines import Month
from ingestion.settings import Settings
from warehouse import measure
from warehouse.engine import connect
from warehouse.measure import Gap


@dataclass(frozen=True)
class Measures:
    """The questions of `warehouse.measure` and of `warehouse.bigquery.measure`, with whom to ask already known."""

    bars_by_month: Callable[[datetime, datetime], dict[Month, int]]
    latest_bars: Callable[[str, str, datetime], pa.Table]
    row_count: Callable[[str], int]
    newest_closes: Callable[[str], dict[str, datetime]]
    gaps: Callable[[], list[Gap]]


def resource_keys(settings: Settings) -> set[str]:
    """The resources that who measures must require."""
    return {"bigquery"} if settings.target == "bigquery" else set()


@contextmanager
def measuring(settings: Settings, resources: Any) -> Iterator[Measures]:
    """Measures while the block lasts. On DuckDB the caller holds the warehouse (`warehouse.engine.writing`)."""
    if settings.target == "duckdb":
        with connect(settings) as connection:
            yield _asked_of(connection, measure)
        return
    from warehouse.bigquery import measure as of_bigquery

    with resources.bigquery.get_client() as client:
        yield _asked_of(client, of_bigquery)


def _asked_of(whom: object, questions: ModuleType) -> Measures:
    return Measures(**{one.name: partial(getattr(questions, one.name), whom) for one in fields(Measures)})
