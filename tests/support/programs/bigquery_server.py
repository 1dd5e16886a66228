"""Starts `local-bigquery` without a network, with what dbt needs of it mended. Run by the environment of the stand-ins
(tests/bigquery.lock), not by the project's.

Environment: EXTENSIONS, a folder in which the extensions of DuckDB are put together.
"""

import copy
import importlib
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import duckdb
from sqlglot import exp

EXTENSIONS = ("icu", "ducklake", "spatial")


def gather_extensions(folder: Path) -> None:
    """The emulator would download them; here they come from packages."""
    for name in EXTENSIONS:
        package = importlib.import_module(f"duckdb_extension_{name}")
        for found in Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension"):
            place = folder / found.parent.name / _platform()
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, place)


def _platform() -> str:
    return duckdb.execute("pragma platform").fetchone()[0]


def load_extensions_from(folder: Path) -> None:
    connect = duckdb.connect

    def connect_offline(*args, config=None, **options):
        config = dict(config or {})
        zone = config.pop("TimeZone", None)  # known only once icu is loaded
        connection = connect(*args, config={**config, "extension_directory": str(folder)}, **options)
        for name in EXTENSIONS:
            connection.execute(f"load {name}")
        # Planning a long chain of common table expressions otherwise takes for ever.
        connection.execute("set global disabled_optimizers = 'cte_inlining'")
        if zone:
            connection.execute(f"set global TimeZone='{zone}'")
        return connection

    duckdb.connect = connect_offline


def report_destination_of_created_tables() -> None:
    """BigQuery names the new table as destinationTable of the job that created it; dbt reads that."""
    from local_bigquery.jobs import query

    execute = query.execute

    def execute_and_name(*args, **options):
        statistics, children, destination = execute(*args, **options)
        if destination is None and statistics is not None and statistics.statementType == "CREATE_TABLE_AS_SELECT":
            destination = statistics.ddlTargetTable
        return statistics, children, destination

    query.execute = execute_and_name


def unpack_structs_that_are_set() -> None:
    """`SET (v) = (SELECT AS STRUCT expression ...)` assigns the expression, not a struct of one field."""
    from local_bigquery.sql import script

    runner = next(one for one in vars(script).values() if isinstance(one, type) and "set_system" in vars(one))
    run_set = runner.set
    pattern = re.compile(r"^\s*set\s*\(\s*(\w+)\s*\)\s*=\s*\(\s*select\s+as\s+struct\b", re.IGNORECASE)

    def run_set_unpacked(self, statement):
        text = pattern.sub(r"SET \1 = (select", statement.text)
        if text != statement.text:
            statement = copy.copy(statement)
            object.__setattr__(statement, "text", text)
        return run_set(self, statement)

    runner.set = run_set_unpacked


def merge_into_tables_that_want_a_partition_filter() -> None:
    """The emulator writes a MERGE as statements of its own, which have no filter; its source keeps needing one."""
    from local_bigquery.jobs import merge
    from local_bigquery.sql.rules import tables
    from local_bigquery.sql.translate import translate

    check, run, merging = tables._check, merge.run, threading.local()

    def run_merge(cursor, tree, context):
        source = tree.args["using"].find(exp.Query)
        if source is not None:
            translate(source, context)
        merging.now = True
        try:
            return run(cursor, tree, context)
        finally:
            merging.now = False

    def check_unless_merging(*args):
        if not getattr(merging, "now", False):
            check(*args)

    tables._check, merge.run = check_unless_merging, run_merge


def take_each_job_once() -> None:
    """Of two jobs of the same name that come at the same time, the second is told that there is one."""
    from local_bigquery.jobs import runner

    submit, at_a_time = runner.submit, threading.Lock()

    def submit_in_turn(*args, **options):
        with at_a_time:
            return submit(*args, **options)

    runner.submit = submit_in_turn


if __name__ == "__main__":
    extensions = Path(os.environ["EXTENSIONS"])
    gather_extensions(extensions)
    load_extensions_from(extensions)
    report_destination_of_created_tables()
    unpack_structs_that_are_set()
    merge_into_tables_that_want_a_partition_filter()
    take_each_job_once()
    from local_bigquery.cli import main

    sys.exit(main())
