"""How landing speaks: what is planned, what landed, what went into quarantine and what stands in its place."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingestion.errors import ExchangeRefused
from ingestion.klines import Series
from klinehouse.output import cell, err, print_json, print_table

if TYPE_CHECKING:
    from ingestion.history.month import MonthResult
    from ingestion.history.run import PlannedMonth

# Lines of quarantine that a person wants to see at once, and the width of a reason.
_SHOWN = 20
_WIDTH = 60


def print_plan(planned: "Sequence[PlannedMonth]", *, as_json: bool) -> None:
    """A line per series and month: what has landed, and what would be asked for, in order."""
    if as_json:
        print_json([{**dataclasses.asdict(one.series), "month": str(one.month), **_plan_json(one)} for one in planned])
        return
    columns = ["symbol", "interval", "month", "landed rows", "asks for"]
    print_table("Plan", columns, [_plan_row(one) for one in planned])


def _plan_json(one: "PlannedMonth") -> dict[str, object]:
    rest = [{"start": window.start, "end": window.end} for window in one.plan.rest]
    return {"landed_rows": one.landed_rows, **dataclasses.asdict(one.plan), "rest": rest}


def _plan_row(one: "PlannedMonth") -> list[object]:
    return [one.series.symbol, one.series.interval, str(one.month), one.landed_rows, _plan_text(one)]


def _plan_text(one: "PlannedMonth") -> str:
    plan = one.plan
    if plan.reason:
        return f"nothing: {plan.reason}"
    days = f"{len(plan.days)} daily zips" if plan.days else ""
    rest = ", ".join(f"{cell(window.start)} to {cell(window.end)}" for window in plan.rest[:2])
    more = f" and {len(plan.rest) - 2} more windows" if len(plan.rest) > 2 else ""
    steps = [
        "checksums of landed files" if plan.recheck else "",
        "monthly zip" if plan.monthly else "",
        f"else {days}" if plan.monthly and days else days,
        f"REST for what is missing of {rest}{more}" if plan.rest else "",
    ]
    return ", ".join(step for step in steps if step)


def print_landed(
    series: Sequence[Series],
    results: "Sequence[MonthResult]",
    environment: Mapping[str, object],
    *,
    as_json: bool,
    title: str = "Landed",
) -> None:
    """A line per series, then every problem. Raises ExchangeRefused for a series of which there is nothing at all."""
    summary = [_summary(one, [result for result in results if result.series == one]) for one in series]
    problems = [
        {"series": str(result.series), "month": str(result.month), **dataclasses.asdict(problem)}
        for result in results
        for problem in result.problems
    ]
    if as_json:
        print_json({"series": summary, "problems": problems, **environment})
    else:
        print_table(title, list(summary[0]), [list(row.values()) for row in summary])
        _print_problems(results)
    for one in series:
        _raise_for_nothing(one, [result for result in results if result.series == one])


def _raise_for_nothing(series: Series, results: "Sequence[MonthResult]") -> None:
    if not results or any(result.outcome != "absent" or result.problems for result in results):
        return
    if any(result.is_unknown for result in results):
        raise ExchangeRefused(
            f"The exchange knows no symbol {series.symbol}.", "`klinehouse symbols --refresh` lists what it knows."
        )
    raise ExchangeRefused(
        f"The exchange has nothing of {series} in these months.", "Check the symbol, the interval and the dates."
    )


def _print_problems(results: "Sequence[MonthResult]") -> None:
    quarantined = [problem for result in results for problem in result.quarantined]
    if quarantined:
        columns = ["refused", "why", "replaced by"]
        rows = [(one.url.rsplit("/", 1)[-1], _short(one.reason), one.replaced_by) for one in quarantined]
        print_table("In quarantine", columns, rows[:_SHOWN])
        if len(rows) > _SHOWN:
            err.print(f"... and {len(rows) - _SHOWN} more; `klinehouse status` lists all.")
    # A host that refuses does so for every month alike: once is enough.
    for reason in dict.fromkeys(problem.reason for result in results for problem in result.refused):
        err.print(f"not asked to the end: {reason}", soft_wrap=True, markup=False)


def _short(reason: str) -> str:
    return reason if len(reason) <= _WIDTH else f"{reason[:_WIDTH]}…"


def _summary(series: Series, results: "Sequence[MonthResult]") -> dict[str, object]:
    outcomes = Counter(str(result.outcome) for result in results)
    return {
        "symbol": series.symbol,
        "interval": series.interval,
        "rows": sum(result.rows for result in results),
        "months": len(results),
        **{name: outcomes[name] for name in ("landed", "unchanged", "absent", "incomplete")},
        "quarantined": sum(len(result.quarantined) for result in results),
        "downloads": sum(result.downloads for result in results),
        "downloaded_bytes": sum(result.downloaded_bytes for result in results),
    }
