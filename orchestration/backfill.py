"""A backfill from the command line: the runs that the UI would launch, in this process, on the persistent instance.

One run lands each symbol, one builds all months, one publishes. (A run per month would cost 7 to 10 s each.)
"""

import logging
from collections.abc import Callable, Sequence
from typing import TextIO

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from ingestion.errors import KlinehouseError
from ingestion.history.month import MonthResult
from ingestion.klines import Month
from ingestion.settings import Settings
from orchestration.definitions import build_defs
from orchestration.history import HistoryLander
from orchestration.instance import open_instance
from orchestration.partitions import month_symbol_key
from orchestration.schedules import BUILD, LAND, PUBLISH

# The run's own console logger would write to the terminal.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class RunFailed(KlinehouseError):
    """A Dagster run ended with a failure that is not one of Klinehouse's own errors."""

    kind = "run_failed"


def backfill(
    settings: Settings,
    months: Sequence[Month],
    *,
    on_run: Callable[[str], None],
    on_month: Callable[[MonthResult], None],
    log: TextIO,
) -> None:
    """Land, build and publish `months` of the settings' symbols. `on_run` hears the title of each run as it starts.

    Dagster's own log lines go to `log`, not to the terminal.
    """
    _log_to(log)
    defs = build_defs(settings, {"lander": HistoryLander(settings, on_month)})
    with open_instance(settings) as instance:
        for symbol in settings.symbols:
            on_run(f"land {symbol}")
            _run(
                defs,
                instance,
                LAND,
                str(month_symbol_key(months[0], symbol)),
                str(month_symbol_key(months[-1], symbol)),
            )
        on_run("build bars and indicators")
        _run(defs, instance, BUILD, str(months[0]), str(months[-1]))
        on_run("publish" if settings.target == "duckdb" else "build dimensions")
        _run(defs, instance, PUBLISH)


def _log_to(log: TextIO) -> None:
    """Send what Dagster would print to the terminal to `log`. (Runs keep their log in the instance as well.)"""
    handler = logging.StreamHandler(log)
    for name in ("dagster", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)


def _run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    first_key: str | None = None,
    last_key: str | None = None,
) -> None:
    tags = {"klinehouse/started_by": "klinehouse backfill"}
    if first_key and last_key:
        tags |= {ASSET_PARTITION_RANGE_START_TAG: first_key, ASSET_PARTITION_RANGE_END_TAG: last_key}
    try:
        defs.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, run_config=_QUIET)
    except KlinehouseError:
        raise
    except Exception as error:
        message = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunFailed(f"The run of {job} failed: {message}", "`make up` shows the run and its log.") from error
