"""What a warehouse on BigQuery costs in a month, and what its increments read, by the layout and list prices.

python -m benchmarks.bigquery_costs                              the tables of docs/bigquery.md
python -m benchmarks.bigquery_costs --write                      the same, into the document
python -m benchmarks.bigquery_costs --symbols 50 --interval 1m   the figures of another warehouse; --json: of all
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.bigquery_layout import prices
from benchmarks.bigquery_layout.figures import (
    AT_A_TIME,
    BACKFILL,
    CASES,
    FILES_PER_LOAD,
    HOURS,
    LANDED_MB,
    MINUTES,
    REPLACED_EUR,
    backfill,
    collector_on_cloud_run,
    figures,
    message_bytes,
)
from benchmarks.bigquery_layout.prices import DAYS_PER_MONTH, EUR_PER_USD, GIB, TIB
from benchmarks.bigquery_layout.scans import MEMORY, REACH, Layout, look_back

DOCUMENT = Path(__file__).parent.parent / "docs" / "bigquery.md"
_NAMES = [f"{layout.symbols} at {layout.interval}" for layout in CASES]
_SMALL, _LARGE = CASES[0], CASES[-1]


def document() -> dict[str, str]:
    """The parts of docs/bigquery.md that this command writes, by name."""
    found = [figures(layout) for layout in CASES]
    return {
        "increments": _increments(found),
        "costs": _costs(found),
        "choices": _choices(),
        "findings": _findings(),
        "prices": _prices(),
        "backfill": _backfill(),
    }


def with_parts(text: str, parts: Mapping[str, str]) -> str:
    """The document with each part between its comments, `<!-- name -->` and `<!-- end -->`."""
    for name, part in parts.items():
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition("<!-- end -->")
        if not closing:
            raise SystemExit(f"{DOCUMENT} has no place for {name}.")
        text = before + opening + part + closing + after
    return text


def _increments(found: Sequence[Mapping[str, float]]) -> str:
    levels = ("1m", "5m", "15m", "1h", "4h", "1d")
    return _table(
        ["", *_NAMES],
        ["rows landed a day", *(f"{one['raw_rows_per_day']:,.0f}" for one in found)],
        ["rows of `market_data_unified` a day", *(f"{one['mart_rows_per_day']:,.0f}" for one in found)],
        ["bytes per row, landed", *(f"{one['raw_bytes_per_row']:.0f}" for one in found)],
        ["bytes per row, `market_data_unified`", *(f"{one['mart_bytes_per_row']:.0f}" for one in found)],
        ["**a daily increment reads**", *(f"**{_size(one['daily_increment_read'])}**" for one in found)],
        *(
            [f"of it to look back for `{level}`", *(_size(look_back(layout, level)) for layout in CASES)]
            for level in levels
        ),
        ["a daily increment is billed", *(_size(one["daily_increment_billed"]) for one in found)],
        [
            "288 live increments, 48 runs, 24 tidy-ups of a day read",
            *(_size(one["live_read_per_day"]) for one in found),
        ],
        ["and are billed", *(_size(one["live_billed_per_day"]) for one in found)],
        ["the morning's refresh of history is billed", *(_size(one["refresh_billed_per_day"]) for one in found)],
        ["the dimensions, daily, are billed", *(_size(one["dimensions_billed_per_day"]) for one in found)],
        ["a question to `market_data_live` adds at most", *(_size(one["question_billed"]) for one in found)],
    )


def _costs(found: Sequence[Mapping[str, float]]) -> str:
    def row(title: str, name: str) -> list[str]:
        return [title, *(_eur(one[name]) for one in found)]

    return (
        _table(
            ["EUR a month", *_NAMES],
            row("queries, after 1 TiB", "usd_queries"),
            row("storage, after 10 GiB", "usd_storage"),
            row("bucket", "usd_bucket"),
            row("Storage Write API, after 2 TiB", "usd_storage_write"),
            row("Pub/Sub, after 10 GiB", "usd_pubsub"),
            row("collector, always on: e2-small", "usd_collector"),
            row("Dagster and the streaming run: e2-medium", "usd_dagster"),
            ["**in all**", *(f"**{one['eur_total']:.2f}**" for one in found)],
            ["the design that this replaces", *[str(REPLACED_EUR)] * len(found)],
        )
        + "\n"
        + _table(
            ["what that is made of, a month", *_NAMES],
            ["queries, billed", *(_size(one["billed_per_month"]) for one in found)],
            ["stored after six years, one of them live", *(_size(one["stored_bytes"]) for one in found)],
            ["appended", *(_size(one["raw_bytes_per_month"]) for one in found)],
            ["messages", *(f"{one['raw_rows_per_day'] * DAYS_PER_MONTH:,.0f}" for one in found)],
        )
    )


def _query_eur(layout: Layout, minutes: int = MINUTES, *, own_tables: bool = False) -> str:
    """EUR a month."""
    return _eur(figures(replace(layout, own_tables=own_tables), minutes)["usd_queries"])


def _choices() -> str:
    return _table(
        ["EUR a month for queries", *_NAMES],
        ["every 5 minutes", *(_query_eur(one) for one in CASES)],
        ["every 15 minutes", *(_query_eur(one, 15) for one in CASES)],
        ["every 60 minutes", *(_query_eur(one, 60) for one in CASES)],
        ["5 minutes, a table per interval", *(_query_eur(one, own_tables=True) for one in CASES)],
        ["15 minutes, a table per interval", *(_query_eur(one, 15, own_tables=True) for one in CASES)],
    )


def _findings() -> str:
    small, large = figures(_SMALL), figures(_LARGE)
    share = look_back(_LARGE, "1d") / large["daily_increment_read"]
    return _list(
        f"A daily increment of 3 symbols at 5m reads {_size(small['daily_increment_read'])}, of 600 at 1m "
        f"{_size(large['daily_increment_read'])}. To look back for `1d` is {share:.0%} of that: the partitions of "
        f"{REACH} daily bars, and then of {MEMORY}, hold all shorter bars too.",
        "For 3 symbols nearly all is the least that is billed, 10 MB for each table of each statement: the live "
        f"increments of a day read {_size(small['live_read_per_day'])} and are billed "
        f"{_size(small['live_billed_per_day'])}. Increments every 15 minutes bring all queries of 3 symbols under the "
        "free tier.",
        f"600 symbols at 1m cost {large['eur_total']:.0f} EUR, of which {_eur(large['usd_queries'])} are queries: "
        f"{'more' if large['eur_total'] > REPLACED_EUR else 'less'} than the {REPLACED_EUR} EUR that were to be "
        f"replaced. With increments every 15 minutes queries are {_query_eur(_LARGE, 15)}. Less than that takes "
        "another layout, each derived interval in a table of its own: "
        f"{_query_eur(_LARGE, own_tables=True)}, and {_query_eur(_LARGE, 15, own_tables=True)} with both.",
        "The dimensions come from a table with a row for each symbol and day (`int_bars_of_days`), so their models and "
        f"tests are billed {_size(large['dimensions_billed_per_day'])} for 600 symbols at 1m.",
        f"The collector is {_eur(prices.E2_SMALL.of(HOURS))} EUR on an e2-small, {_eur(collector_on_cloud_run())} on "
        "Cloud Run with a vCPU and 512 MiB always allocated.",
        f"Storage is the least of it: {_eur(large['usd_storage'])} EUR for 600 symbols at 1m, "
        f"{_eur(large['usd_storage_after_backfill'])} in the first 90 days after a backfill.",
    )


def _prices() -> str:
    rows = [
        [name, f"{one.usd:.6f}".rstrip("0"), one.unit, f"{one.free:,.0f}" if one.free else "", one.source, one.checked]
        for name, one in prices.PRICES.items()
    ]
    return _table(["list price", "USD", "per", "free a month", "page", "checked"], *rows, numbers=False)


def _backfill() -> str:
    found = backfill(BACKFILL)
    run = f"{found['rows_per_symbol'] / 1e6:.2f} million bars, {found['seconds_per_symbol']:.0f} s"
    loads = f"{found['load_jobs']:.0f} of {found['days_per_load']:.0f} day partitions each"
    return _table(
        [f"{BACKFILL.symbols} symbols, {BACKFILL.interval}, {BACKFILL.years:g} years", ""],
        ["bars, if every symbol existed all the time", f"{found['bars'] / 1e9:.2f} billion"],
        ["rows of `market_data_unified`", f"{found['mart_rows'] / 1e9:.2f} billion"],
        ["months of a symbol: partitions, files", f"{found['files']:,.0f}"],
        ["zips to fetch; files in the bucket", f"{_size(found['zip_bytes'])}; {_size(found['parquet_bytes'])}"],
        ["`crypto_raw.klines`; `market_data_unified`", f"{_size(found['raw_bytes'])}; {_size(found['mart_bytes'])}"],
        ["one run: the months of a symbol", run],
        ["most memory measured, for twice the bars of a run", f"{LANDED_MB:.0f} MB"],
        [f"all runs, {AT_A_TIME} at a time, 15 s each to start", f"{found['runs_seconds'] / 60:.0f} min"],
        ["fetching the zips over 100 Mbit/s", f"{found['fetch_seconds'] / 3600:.1f} h"],
        [f"load jobs of at most {FILES_PER_LOAD:,} files", loads],
        ["day partitions in all", f"{found['days']:,.0f}"],
        ["loading: staging is read once", f"{_eur(found['usd_load'])} EUR"],
        ["first build: `crypto_raw.klines` is read once", f"{_eur(found['usd_first_build'])} EUR"],
        ["building all of it again", f"{_size(found['rebuild_bytes'])} read"],
        ["years that one MERGE rebuilds within 1 TiB", f"{found['years_per_rebuild']:.1f}"],
    )


def _table(header: Sequence[str], *rows: Sequence[str], numbers: bool = True) -> str:
    rule = ["---"] + ["---:" if numbers else "---"] * (len(header) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *rows))


def _list(*items: str) -> str:
    return "".join(f"- {item}\n" for item in items)


def _eur(dollars: float) -> str:
    return f"{dollars * EUR_PER_USD:.2f}"


def _size(count: float) -> str:
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (1 << 20, "MiB")):
        if count >= unit:
            return f"{count / unit:,.{0 if count >= 100 * unit else 1}f} {name}"
    return f"{count / 1024:.0f} KiB" if count else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int)
    parser.add_argument("--interval", default="5m")
    parser.add_argument("--years", type=float, default=6.0)
    parser.add_argument("--minutes", type=int, default=MINUTES, help="minutes between increments")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/bigquery.md")
    given = parser.parse_args()
    if given.json or given.symbols:
        layouts = [Layout(given.symbols, given.interval, given.years)] if given.symbols else CASES
        named = {f"{one.symbols} at {one.interval}": figures(one, given.minutes) for one in layouts}
        print(json.dumps({"message_bytes": message_bytes(), **named}, indent=2))
    elif given.write:
        DOCUMENT.write_text(with_parts(DOCUMENT.read_text(), document()))
    else:
        print("\n".join(document().values()))


if __name__ == "__main__":
    main()
