"""Indicators of bars that have just closed, before the warehouse has them.

They come from the query of the model `market_data_live`, as dbt compiled it, over a copy of the last bars in memory: a
twentieth of a second, and also while another process holds the warehouse for minutes. What the warehouse computes
afterwards takes their place.
"""

import duckdb
import pyarrow as pa

from ingestion.klines import no_klines
from warehouse.engine import registered, transaction
from warehouse.served_files import BARS

_SCHEMAS = ("crypto_raw", "crypto_analytics")
# Planning the query takes as long as running it does. A late bar is known, or not newer, so it is not fresh.
_FRESH = f"""prepare fresh as
    select live.* from ({{query}}) as live
    anti join crypto_analytics.{BARS} as known
        on live.symbol = known.symbol and live."interval" = known."interval" and live.open_time = known.open_time"""


class FreshBars:
    """What the averages remember of each series of the base interval. Not for several threads."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._db = duckdb.connect()
        self._db.execute("set TimeZone = 'UTC'; attach ':memory:' as klinehouse; use klinehouse")
        self._knows = False

    def remember(self, bars: pa.Table) -> None:
        """Take rows of the main table as the last bars there are; later ones that were computed here stay known."""
        if not self._knows:
            self._begin(bars)
        with registered(self._db, "bars", bars), transaction(self._db):
            self._db.execute(
                f"""delete from crypto_analytics.{BARS} as known
                where not exists (
                    select 1 from (select symbol, max(open_time) as until from bars group by symbol) as told
                    where told.symbol = known.symbol and told.until < known.open_time)"""
            )
            self._db.execute(f"insert into crypto_analytics.{BARS} by name from bars")

    def compute(self, rows: pa.Table) -> pa.Table:
        """The bars of `rows` (KLINE_SCHEMA, each once) that are newer than what is known of their series, as rows of
        the main table; none of a series of which too little is known."""
        if not self._knows:
            return pa.table({})
        with registered(self._db, "landed", rows), transaction(self._db):
            self._db.execute("truncate crypto_analytics.stg_klines")
            self._db.execute("insert into crypto_analytics.stg_klines by name from landed")
            fresh = self._db.sql("execute fresh").to_arrow_table()
            with registered(self._db, "fresh_bars", fresh):
                self._db.execute(f"insert into crypto_analytics.{BARS} by name from fresh_bars")
        return fresh

    def close(self) -> None:
        self._db.close()

    def _begin(self, bars: pa.Table) -> None:
        for schema in _SCHEMAS:
            self._db.execute(f"create schema {schema}")
        for name, rows in (("stg_klines", no_klines()), (BARS, bars)):
            with registered(self._db, "shape", rows):
                self._db.execute(f"create table crypto_analytics.{name} as from shape limit 0")
        # Where a series began is not told, so the model asks for as many bars as the averages remember.
        self._db.execute(
            f"""create view crypto_raw.klines_coverage as
            select distinct symbol, "interval", timestamptz '1900-01-01' as covered_from from crypto_analytics.{BARS}"""
        )
        self._db.execute(_FRESH.format(query=self._query))
        self._knows = True
