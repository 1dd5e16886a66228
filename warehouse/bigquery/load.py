"""Bringing rows into `crypto_raw`: load jobs, which cost nothing, into tables of their own, then one transaction that
puts those rows in the place of the old ones. Whoever reads sees the old rows or the new ones.

A load job's name is a hash of what it loads: one that is repeated, by a retry or by another process, is the same job.
"""

import hashlib
import io
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.cloud import bigquery

from warehouse.bigquery.client import LABELS, RAW, BigQuery, WarehouseUnavailable, explained, labels
from warehouse.bigquery.tables import TRANSACTIONS, fields

# BigQuery takes 10,000 files in one job.
FILES_PER_LOAD = 5_000
_KEPT = timedelta(days=2)
_ATTEMPTS = 5

# What an assertion inside a transaction says when another one was first.
CHANGED_MEANWHILE = "klinehouse: loaded meanwhile"
# BigQuery's word for a transaction that met another one, and the emulator's.
_MET = ("aborted due to concurrent update", "Failed to commit DuckLake transaction")


def load_files(warehouse: BigQuery, files: Sequence[tuple[str, str]], schema: pa.Schema) -> str:
    """Load Parquet files (address and version of each) into a table of their own, which lasts two days; its name."""
    name = _name(*(f"{address} {version}" for address, version in sorted(files)))
    _load(warehouse, name, schema, [address for address, _ in sorted(files)])
    return name


def load_rows(warehouse: BigQuery, rows: pa.Table) -> str:
    """The same for rows of a table in memory."""
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    name = _name(hashlib.sha256(sink.getvalue()).hexdigest())
    _load(warehouse, name, rows.schema, sink.getvalue())
    return name


def _name(*contents: str) -> str:
    return "load_" + hashlib.sha256("\n".join(contents).encode()).hexdigest()[:32]


def _load(warehouse: BigQuery, name: str, schema: pa.Schema, source: list[str] | bytes) -> None:
    """Raises WarehouseUnavailable when the job fails."""
    destination = f"{warehouse.project}.{RAW}.{name}"
    config = bigquery.LoadJobConfig(
        source_format="PARQUET",
        schema=fields(schema),
        write_disposition="WRITE_TRUNCATE",
        decimal_target_types=["NUMERIC"],
        labels=labels("load"),
    )
    with explained(f"the load of {name}"):
        for attempt in range(_ATTEMPTS):
            job_id = f"klinehouse_{name}" + (f"_{attempt}" if attempt else "")
            try:
                if isinstance(source, bytes):
                    job = warehouse.client.load_table_from_file(
                        io.BytesIO(source), destination, job_id=job_id, job_config=config
                    )
                else:
                    job = warehouse.client.load_table_from_uri(source, destination, job_id=job_id, job_config=config)
            except Conflict:  # done before, or being done by another process
                job = cast("bigquery.LoadJob", warehouse.client.get_job(job_id))
            try:
                job.result()
                _expire(warehouse, destination)
            except GoogleAPICallError:
                # The job of an earlier attempt failed, or what it made has gone since: under a new name.
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return


def _expire(warehouse: BigQuery, destination: str) -> None:
    """Raises NotFound when the table has gone."""
    table = warehouse.client.get_table(destination)
    table.expires = datetime.now(UTC) + _KEPT
    table.labels = dict(LABELS)
    warehouse.client.update_table(table, ["expires", "labels"])


class Superseded(WarehouseUnavailable):
    """Another process changed the same rows first: look again at what has landed."""


def in_one_transaction(
    warehouse: BigQuery, statements: Sequence[str], parameters: Sequence[object], purpose: str
) -> None:
    """All of the statements or none, one such transaction at a time: one that meets another begins again. Raises
    Superseded when one of the statements says CHANGED_MEANWHILE."""
    # Without a row that all of them change, two that only add rows where none were would both succeed.
    one_at_a_time = f"update {RAW}.{TRANSACTIONS} set number = number + 1 where true"
    script = ";\n".join(["begin transaction", one_at_a_time, *statements, "commit transaction"]) + ";"
    for attempt in range(_ATTEMPTS + 1):
        try:
            warehouse.run(script, parameters, purpose=purpose)
        except WarehouseUnavailable as error:
            if CHANGED_MEANWHILE in error.message:
                raise Superseded(error.message, error.remedy) from error
            if attempt == _ATTEMPTS or not any(sign in error.message for sign in _MET):
                raise
            time.sleep(random.uniform(0.5, 1) * 2**attempt)  # noqa: S311 - not for secrets
        else:
            return
