"""What `klinehouse demo` shows: a summary, a chart, and what to do next."""

import os

import plotext

from ingestion.settings import Settings
from klinehouse.output import out, print_table
from warehouse.serving import run_query

_SUMMARY = """
    select symbol, "interval", count(*) as bars, min(open_time) as first_open, max(close_time) as last_close,
        count(*) - count(ema_50) as warming_up
    from market_data_unified group by all
    order by symbol, epoch(max(close_time) - max(open_time))
"""
_LATEST = """
    select symbol, open_time, close, sma_20, ema_50, rsi_14, macd, macd_signal, bb_upper, bb_lower
    from market_data_unified where "interval" = '1d'
    qualify row_number() over (partition by symbol order by open_time desc) = 1 order by symbol
"""
_CHART = """
    select strftime(open_time, '%Y-%m-%d'), close, ema_50 from market_data_unified
    where symbol = ? and "interval" = '1d' order by open_time
"""


def show(settings: Settings) -> None:
    summary = run_query(settings, _SUMMARY)
    print_table("The warehouse", summary.columns, summary.rows)
    latest = run_query(settings, _LATEST)
    print_table("The last daily bars and their indicators", latest.columns, latest.rows)
    out.print(_chart(settings), highlight=False, markup=False)


def show_next(settings: Settings) -> None:
    home = os.path.relpath(settings.home)
    out.print("Next:", style="bold")
    out.print(
        "  make up                            live bars and the Dagster UI: assets, partitions, checks", highlight=False
    )
    out.print(f"  export KLINEHOUSE_HOME={home}      then:", highlight=False)
    out.print('  uv run klinehouse query "select * from market_data_unified limit 5"', highlight=False, markup=False)
    out.print(f"  duckdb {home}/serving/klinehouse.duckdb   or any BI tool or notebook with DuckDB", highlight=False)
    out.print("  uv run klinehouse backfill         in another home: the same from the real exchange", highlight=False)


def _chart(settings: Settings) -> str:
    symbol = settings.symbols[0]
    rows = run_query(settings, _CHART, parameters=[symbol]).rows
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(100, 20)
    plotext.date_form("Y-m-d")
    dates = [row[0] for row in rows]
    plotext.plot(dates, [row[1] for row in rows], label="close", marker="braille")
    warm = [(day, ema) for day, _, ema in rows if ema is not None]
    if warm:
        plotext.plot([day for day, _ in warm], [ema for _, ema in warm], label="EMA 50", marker="dot")
    plotext.title(f"{symbol} 1d, simulated")
    return str(plotext.uncolorize(plotext.build()))
