"""Which daily partitions a statement reads and writes, told from its text as BigQuery's pruning would.

Only conditions on the partitioning column with literals count, of those that stand at the scan itself and are joined by
AND: https://cloud.google.com/bigquery/docs/querying-partitioned-tables. A day that no condition excludes is touched.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlglot
from sqlglot import exp

_DAY = timedelta(days=1)
_MIRRORED = {exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE, exp.EQ: exp.EQ}


@dataclass(frozen=True)
class Scan:
    """A table where a statement reads it or changes its rows (`writes`): the days touched, and the one interval that it
    is about, if it names one."""

    table: str
    writes: bool
    interval: str | None
    days: frozenset[date]


def scans(script: str, tables: Collection[str], days: Collection[date], column: str = "open_time") -> list[Scan]:
    """Every scan of these tables (by their names alone) in a statement or script, of partitions on `days`."""
    found = []
    for statement in sqlglot.parse(script, dialect="bigquery"):
        # A view is read when somebody asks it.
        if statement is not None and not (isinstance(statement, exp.Create) and statement.kind == "VIEW"):
            found += [
                _scan(table, days, column)
                for table in statement.find_all(exp.Table)
                if table.name in tables and not _is_only_filled(table)
            ]
    return found


def _is_only_filled(table: exp.Table) -> bool:
    """The table that rows are inserted into, or that is created or dropped: nothing of it is read."""
    parent = table.parent.parent if isinstance(table.parent, exp.Schema) else table.parent
    return isinstance(parent, (exp.Insert, exp.Create, exp.Drop))


def _scan(table: exp.Table, days: Collection[date], column: str) -> Scan:
    owner = table.find_ancestor(exp.Select, exp.Merge, exp.Delete, exp.Update)
    assert owner is not None, table.sql()
    conditions = [
        one
        for one in _conditions(owner, table)
        if all(found.table in ("", table.alias_or_name) for found in one.find_all(exp.Column) if found.name == column)
    ]
    prunings = [found for one in conditions if (found := _pruning(one, column)) is not None]
    intervals = {value for one in conditions if (value := _interval(one)) is not None}
    return Scan(
        table.name,
        isinstance(owner, (exp.Merge, exp.Delete, exp.Update)) and table is owner.this,
        next(iter(intervals), None),
        frozenset(day for day in days if all(may_hold(day) for may_hold in prunings)),
    )


def _conditions(owner: exp.Expression, table: exp.Table) -> Iterator[exp.Expression]:
    """Those that a row of the table must meet to be read by its owner."""
    if isinstance(owner, exp.Merge):
        # A row of the target that matches no row of the source is looked for where every branch says so.
        branches = owner.args["whens"].expressions
        targets = [one for one in branches if one.args.get("source")]
        if table is owner.this and len(targets) == 1 and owner.args["on"].sql() == "FALSE":
            yield from _joined_by_and(targets[0].args.get("condition"))
        else:
            yield from _joined_by_and(owner.args["on"])
        return
    where = owner.args.get("where")
    yield from _joined_by_and(where.this if where else None)


def _joined_by_and(condition: exp.Expression | None) -> Iterator[exp.Expression]:
    condition = condition.unnest() if condition is not None else None
    if isinstance(condition, exp.And):
        yield from _joined_by_and(condition.left)
        yield from _joined_by_and(condition.right)
    elif condition is not None:
        yield condition


def _interval(condition: exp.Expression) -> str | None:
    if isinstance(condition, exp.EQ) and isinstance(condition.left, exp.Column) and condition.left.name == "interval":
        return condition.right.name if isinstance(condition.right, exp.Literal) else None
    return None


def _pruning(condition: exp.Expression, column: str) -> Callable[[date], bool] | None:
    """Whether a row of a day's partition can meet a condition; None if the condition tells nothing of that."""
    if isinstance(condition, exp.In):
        listed = [_literal(one) for one in condition.expressions]
        wanted = {at.date() for at in listed if at is not None}
        if not listed or None in listed or not _is_day_of(condition.this, column):
            return None
        return lambda day: day in wanted
    kind = type(condition)
    if kind not in _MIRRORED:
        return None
    assert isinstance(condition, exp.Binary)
    side, bound = condition.left, _literal(condition.right)
    if bound is None:
        kind, side, bound = _MIRRORED[kind], condition.right, _literal(condition.left)
    is_day = _is_day_of(side, column)
    if bound is None or not (is_day or _is_column(side, column)):
        return None
    length = timedelta() if is_day else _DAY - timedelta(microseconds=1)
    return lambda day: _meets(kind, day, length, bound)


def _meets(kind: type[exp.Expression], day: date, length: timedelta, bound: datetime) -> bool:
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    last = first + length
    if kind is exp.EQ:
        return first <= bound <= last
    if kind in (exp.GT, exp.GTE):
        return last > bound or (kind is exp.GTE and last == bound)
    return first < bound or (kind is exp.LTE and first == bound)


def _is_column(found: exp.Expression, column: str) -> bool:
    return isinstance(found, exp.Column) and found.name == column


def _is_day_of(found: exp.Expression, column: str) -> bool:
    """timestamp_trunc(column, day)."""
    return (
        isinstance(found, exp.TimestampTrunc)
        and _is_column(found.this, column)
        and str(found.args["unit"].name).upper() == "DAY"
    )


def _literal(found: exp.Expression) -> datetime | None:
    """An instant that is written as TIMESTAMP 'text'."""
    if not isinstance(found, exp.Cast) or not isinstance(found.this, exp.Literal):
        return None
    if not found.to.is_type("timestamptz", "timestamp"):
        return None
    text = found.this.name
    at = datetime.fromisoformat(f"{text}:00" if text[-3:-2] in "+-" else text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
