"""Publishes versions as fast as it can until a file appears; every row of every table of a version has its number.

Every third version lacks a month, which is there again in the next: a gap, and its repair. Prints how many versions it
published.
"""

import sys
from pathlib import Path

from ingestion.settings import load_settings
from warehouse.engine import connect, writing
from warehouse.serving import publish

TABLES = ("dim_dates", "dim_hours", "dim_symbols", "klines_gaps", "klines_reconciliation")
MONTHS = ("2024-01-01", "2024-02-01", "2024-03-01")


def main(home: str, stop: str) -> None:
    settings = load_settings(home=home, serving_grace=20)
    version = 0
    while version == 0 or not Path(stop).exists():
        version += 1
        with writing(settings), connect(settings) as connection:
            connection.execute("begin")
            connection.execute("create schema if not exists crypto_analytics")
            connection.execute("create schema if not exists bookkeeping")
            for table in TABLES:
                connection.execute(f"create or replace table crypto_analytics.{table} as select {version} as version")
            months = MONTHS[: 2 if version % 3 == 0 else 3]
            connection.execute(
                f"""create or replace table crypto_analytics.market_data_unified as
                select 'BTCUSDT' as symbol, '1d' as "interval", open_time,
                    open_time + interval '1 day' - interval '1 millisecond' as close_time, {version} as version
                from (
                    select unnest(generate_series(month, month + interval '27 days', interval '1 day')) as open_time
                    from (select unnest({list(months)})::timestamptz as month)
                )"""
            )
            connection.execute(
                f"""create or replace table bookkeeping.unpublished as
                select 'BTCUSDT' as symbol, '1d' as "interval", unnest({list(MONTHS)})::timestamptz as month_start,
                    month_start as changed_from, '{version}' as invocation"""
            )
            connection.execute("commit")
        publish(settings)
    sys.stdout.write(str(version))


main(*sys.argv[1:])
