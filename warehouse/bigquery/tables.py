"""The tables of `crypto_raw`: what has landed, and what a run is about.

    klines               landed history: a month of a series is replaced whole, when its file has changed
    klines_stream        bars as they came by stream, only ever appended
    klines_loaded        which version of each month's file `klines` has
    klines_built         and which of them `crypto_analytics` was built from
    klines_coverage, klines_differences, run_symbols, symbols    as on DuckDB, see warehouse/raw_source.py
    transactions         one row, which every transaction changes, so that two at once are noticed

Two tables of klines, because a transaction may not change rows that were streamed within the last half an hour
(https://cloud.google.com/bigquery/docs/write-api), and a month that is replaced must not touch what streams append at
the same time. Staging takes each bar once, see macros/landed_klines.sql.
"""

import pyarrow as pa
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from ingestion.klines import INSTANT, KLINE_SCHEMA
from ingestion.raw_zone import DIFFERENCE_SCHEMA
from ingestion.symbols import SYMBOL_SCHEMA
from warehouse.bigquery.client import LABELS, RAW, BigQuery, explained

KEY = [pa.field("symbol", pa.string(), nullable=False), pa.field("interval", pa.string(), nullable=False)]
COVERAGE_SCHEMA = pa.schema(
    [
        *KEY,
        pa.field("month_start", INSTANT, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("covered_from", INSTANT, nullable=False),
        pa.field("covered_until", INSTANT, nullable=False),
    ]
)
LOADED_SCHEMA = pa.schema(
    [*KEY, pa.field("month_start", INSTANT, nullable=False), pa.field("version", pa.string(), nullable=False)]
)
RUN_SYMBOLS_SCHEMA = pa.schema([KEY[0]])

SCHEMAS = {
    "klines": KLINE_SCHEMA,
    "klines_stream": KLINE_SCHEMA,
    "klines_loaded": LOADED_SCHEMA,
    "klines_built": LOADED_SCHEMA,
    "klines_coverage": COVERAGE_SCHEMA,
    "klines_differences": DIFFERENCE_SCHEMA,
    "run_symbols": RUN_SYMBOLS_SCHEMA,
    "symbols": SYMBOL_SCHEMA,
}
TRANSACTIONS = "transactions"
_DAILY = ("klines", "klines_stream")


def fields(schema: pa.Schema) -> list[bigquery.SchemaField]:
    """Columns of BigQuery for an Arrow schema; decimals become NUMERIC, which holds 38 digits, 9 of them after the
    point."""
    return [
        bigquery.SchemaField(field.name, _type(field.type), mode="NULLABLE" if field.nullable else "REQUIRED")
        for field in schema
    ]


def _type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return "NUMERIC"
    return {pa.string(): "STRING", pa.int64(): "INTEGER", INSTANT: "TIMESTAMP"}[kind]


def make_tables(warehouse: BigQuery) -> None:
    """Make the datasets and tables that are missing; what is there stays as it is."""
    client = warehouse.client
    with explained(f"dataset {RAW}"):
        for name in (RAW, "crypto_analytics"):
            _make_dataset(warehouse, name)
        there = {table.table_id for table in client.list_tables(f"{warehouse.project}.{RAW}")}
        for name in SCHEMAS.keys() - there:
            client.create_table(_table(warehouse, name), exists_ok=True)
    if TRANSACTIONS not in there:
        # Made with its row in one statement: without the row nothing would be noticed.
        labelled = ", ".join(f"('{name}', '{value}')" for name, value in LABELS.items())
        warehouse.run(
            f"create table if not exists {RAW}.{TRANSACTIONS} options (labels = [{labelled}]) as select 0 as number",
            purpose="table of transactions",
        )


def _make_dataset(warehouse: BigQuery, name: str) -> None:
    """Asked first: who may write to the datasets need not be allowed to make some."""
    reference = f"{warehouse.project}.{name}"
    try:
        warehouse.client.get_dataset(reference)
    except NotFound:
        dataset = bigquery.Dataset(reference)
        dataset.location = warehouse.location
        dataset.labels = dict(LABELS)
        warehouse.client.create_dataset(dataset, exists_ok=True)


def _table(warehouse: BigQuery, name: str) -> bigquery.Table:
    table = bigquery.Table(f"{warehouse.project}.{RAW}.{name}", fields(SCHEMAS[name]))
    table.labels = dict(LABELS)
    if name in _DAILY:
        table.time_partitioning = bigquery.TimePartitioning(field="open_time")
        table.clustering_fields = ["symbol", "interval"]
        table.require_partition_filter = True
    return table
