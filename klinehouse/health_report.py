"""How the commands about health speak: the heat strip of coverage, the story of a bar, comparisons."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from ingestion.history.coverage import SeriesCoverage, State
from klinehouse.output import cell, err, out, print_json, print_table

if TYPE_CHECKING:
    from ingestion.history.compare import ComparedMonth
    from warehouse.explain import Explanation

_LOOK = {
    State.FULL: ("█", "green"),
    State.OUTAGE: ("▓", "cyan"),
    State.REVISED: ("▒", "blue"),
    State.HOLE: ("░", "red"),
    State.QUARANTINED: ("x", "red"),
    State.MISSING: ("?", "yellow"),
    State.STREAM: ("~", "yellow"),
    State.NOT_LISTED: ("·", "dim"),
}


def coverage_json(found: Sequence[SeriesCoverage]) -> list[dict[str, object]]:
    return [
        {
            **dataclasses.asdict(line.series),
            "months": [
                {
                    "month": str(one.month),
                    "state": str(one.state),
                    "rows": one.rows,
                    "missing": [{"start": window.start, "end": window.end} for window in one.unasked],
                    "streamed_until": one.streamed_until,
                }
                for one in line.cells
            ],
        }
        for line in found
    ]


def print_coverage(found: Sequence[SeriesCoverage]) -> None:
    """A line per series, a cell per month, years apart; then what the cells mean, with how many there are."""
    width = max(len(str(line.series)) for line in found)
    years = [(year, len(list(months))) for year, months in groupby(found[0].cells, key=lambda one: one.month.year)]
    out.print(" " * width + " " + " ".join(f"{year:<{max(count, 4)}}" for year, count in years), highlight=False)
    for line in found:
        strip = Text(f"{line.series!s:<{width}} ")
        for year, count in years:
            cells = [one for one in line.cells if one.month.year == year]
            for one in cells:
                strip.append(*_LOOK[one.state])
            strip.append(" " * (max(count, 4) - len(cells) + 1))
        out.print(strip, soft_wrap=True)
    counted = {state: sum(one.state is state for line in found for one in line.cells) for state in State}
    legend = [Text.assemble(_LOOK[state], f" {state} {counted[state]}") for state in State if counted[state]]
    out.print(Text("   ").join(legend), soft_wrap=True)
    if any(line.missing for line in found):
        err.print("`klinehouse heal` asks the exchange for what is missing.")


def print_explanation(found: "Explanation") -> None:
    bar = found.bar
    title = f"{bar['symbol']} {bar['interval']} {cell(bar['open_time'])}"
    prices = ("open", "high", "low", "close", "volume", "quote_volume", "trades", "source", "ingested_at")
    print_table(title, prices, [[bar[name] for name in prices]])
    if len(found.raw) != 1:
        out.print(f"Made of {len(found.raw)} landed bars of the base interval.", highlight=False)
    _print_origin(found)
    _print_disagreements(found)
    columns = ["indicator", "how", "computed here", "in the warehouse"]
    print_table("Indicators", columns, [dataclasses.astuple(step) for step in found.steps])


def _print_origin(found: "Explanation") -> None:
    if found.answers:
        columns = ["source", "url", "sha256", "fetched at", "speaks of", "rows"]
        rows = [
            (one.source, one.url, one.sha256, one.fetched_at, f"{cell(one.start)} to {cell(one.end)}", one.rows)
            for one in found.answers
        ]
        print_table("Asked", columns, rows)
    else:
        out.print("History has not asked for it yet.", highlight=False)
    if found.stream:
        columns = ["came by", "file", "bars", "of these count", "first received", "last received"]
        parts = [
            (
                *(part.source, part.file, part.bars, part.counting),
                *(_second(part.first_received_at), _second(part.last_received_at)),
            )
            for part in found.stream
        ]
        print_table("Came live", columns, parts)


def _second(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _print_disagreements(found: "Explanation") -> None:
    if not found.disagreements:
        out.print("No source said anything else.\n", highlight=False)
        return
    names = ("open_time", "field", "kept_source", "kept_value", "other_source", "other_value")
    print_table("Sources disagreed", names, [[row[name] for name in names] for row in found.disagreements])


def print_compared(compared: "Sequence[ComparedMonth]", *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(one) | {"month": str(one.month)} for one in compared])
        return
    bars = sum(one.bars for one in compared)
    differing = [one for one in compared if one.differing_bars]
    out.print(
        f"{bars:,} bars compared with REST, {sum(one.differing_bars for one in differing):,} differ.", highlight=False
    )
    if differing:
        columns = ["symbol", "interval", "month", "bars", "differing bars", "differing fields"]
        rows = [
            (
                *(one.series.symbol, one.series.interval, str(one.month)),
                *(one.bars, one.differing_bars, one.differing_fields),
            )
            for one in differing
        ]
        print_table("klines_reconciliation has them", columns, rows)
