"""The live path in Dagster: the asset `live_klines`, filled by one long run that a sensor keeps alive.

A run per micro-batch would cost 10 to 15 s each. So one run works through them, and records a materialization of the
asset for each, with its lag; before it gets old, the sensor starts its successor, which warms up and takes over.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock, Timeout

from ingestion.bus.open import open_bus
from ingestion.settings import Settings
from orchestration.history import OWNERS
from warehouse.streaming import BatchReport, older_than, stream, until_asked
from warehouse.warm_up import warm_up

LIVE_KLINES = dg.AssetKey("live_klines")
STREAM = "stream"
# A run that goes on for ever grows in Dagster's storage and in memory; its successor is asked for before it ends.
SUCCEEDED_AFTER = timedelta(minutes=30)
ENDS_AFTER = timedelta(minutes=40)
# After its start a run gives its sign of life within seconds.
ALIVE_WITHIN = timedelta(seconds=30)


def live_klines_asset(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=LIVE_KLINES,
        group_name="live",
        owners=OWNERS,
        kinds={"python", "duckdb"},
        description=(
            f"Closed {settings.interval} bars from the message bus, drained in micro-batches: raw zone, bars with "
            "indicators, serving, then acknowledged. Each batch is one materialization, with its rows, how old its "
            "bars were when they became visible, and what waits."
        ),
    )
    def live_klines(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        def record(report: BatchReport) -> None:
            context.log_event(dg.AssetMaterialization(LIVE_KLINES, metadata=batch_metadata(report)))
            # To the console alone: the event log has the batch already.
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
            for reason in report.refused:
                context.log.warning(f"a message was refused: {reason}")

        _show_life(settings, context.run_id)
        is_over = older_than(ENDS_AFTER)
        with until_asked() as asked:
            warm_up(settings)
            with open_bus(settings) as bus:
                reason = stream(settings, bus, record, lambda: asked() or is_over())
        return dg.MaterializeResult(metadata={"ended_because": reason})

    return live_klines


def batch_metadata(report: BatchReport) -> dict[str, Any]:
    """What the UI shows and plots of one batch."""
    metadata: dict[str, Any] = {
        "dagster/row_count": report.rows,
        "series": report.series,
        "messages": report.messages,
        "refused": len(report.refused),
        "backlog": report.backlog,
        "batch_seconds": round(report.seconds, 3),
    }
    if report.watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(report.watermark)
    for name, lag in (("watermark_lag_s", report.watermark_lag), ("system_lag_s", report.system_lag)):
        if lag is not None:
            metadata[name] = round(lag, 3)
    return metadata


def signs_of_life(settings: Settings) -> Path:
    """The folder with a file for each streaming run, `<run id>.lock`, which is locked as long as its process lives."""
    return settings.home / "bus" / "runs"


def _sign_of_life(settings: Settings, run_id: str) -> FileLock:
    folder = signs_of_life(settings)
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{run_id}.lock", is_singleton=False)


# Held until the process ends: a run is not finished yet when its asset is.
_lives: list[FileLock] = []


def _show_life(settings: Settings, run_id: str) -> None:
    life = _sign_of_life(settings, run_id)
    life.acquire()
    _lives.append(life)


def _is_dead(settings: Settings, record: dg.RunRecord, now: datetime) -> bool:
    """Whether the process of a run has died without a word. Dagster's launcher for one machine does not look for that:
    the run would count as started for ever."""
    if record.start_time is None or now - datetime.fromtimestamp(record.start_time, UTC) < ALIVE_WITHIN:
        return False
    lock = _sign_of_life(settings, record.dagster_run.run_id)
    try:
        with lock.acquire(0):
            return True
    except Timeout:
        return False


def _forget_all_but(settings: Settings, unfinished: set[str]) -> None:
    for path in signs_of_life(settings).glob("*.lock"):
        if path.stem not in unfinished:
            path.unlink(missing_ok=True)


def is_due(running: list[datetime | None], now: datetime) -> bool:
    """Whether a streaming run is to be started: there is none, or the only one gets old.

    `running` has the start of each run that is queued, starting or started (None: it has not started yet).
    """
    if len(running) >= 2:
        return False
    return all(start is not None and now - start >= SUCCEEDED_AFTER for start in running)


def live_status(settings: Settings) -> dg.DefaultSensorStatus:
    """Sensors of the live path run from the start, unless a home is not to have one."""
    return dg.DefaultSensorStatus.RUNNING if settings.streaming else dg.DefaultSensorStatus.STOPPED


def keep_streaming(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="keep_streaming",
        job_name=STREAM,
        minimum_interval_seconds=5,
        default_status=live_status(settings),
        description="Keeps one streaming run alive: starts another when its process has died, or before it ends.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        statuses = [
            *(dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING),
            dg.DagsterRunStatus.STARTED,
        ]
        now, starts = datetime.now(UTC), []
        records = context.instance.get_run_records(dg.RunsFilter(job_name=STREAM, statuses=statuses))
        _forget_all_but(settings, {record.dagster_run.run_id for record in records})
        for record in records:
            if _is_dead(settings, record, now):
                context.instance.report_run_failed(record.dagster_run, "Its process is gone; another run takes over.")
            else:
                starts.append(datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None)
        if is_due(starts, now):
            return dg.RunRequest()
        return dg.SkipReason(f"{len(starts)} running")

    return sensor
