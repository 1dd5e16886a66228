"""Gaps that nobody has asked the exchange about are asked for; gaps that the exchange has too are left."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from ingestion.history.run import raise_for
from ingestion.klines import Month, Series
from ingestion.settings import Settings
from orchestration.live import live_status
from orchestration.serving import is_published
from warehouse.healing import heal, missing_months

HEAL = "heal_missing_bars"


def heal_job(settings: Settings) -> dg.JobDefinition:
    @dg.op(description="Lands the months with missing bars again, exactly what they lack, then builds and publishes.")
    def heal_gaps(context: dg.OpExecutionContext) -> None:
        results = heal(settings, missing_months(settings))
        for result in results:
            context.log.info(f"{result.series} {result.month}: {result.outcome}, {result.rows} rows")
        raise_for(results)

    @dg.job(name=HEAL, description="Asks the exchange for bars that are missing; a sensor starts it.")
    def job() -> None:
        heal_gaps()

    return job


def run_key(missing: Mapping[Series, Sequence[Month]], now: datetime) -> str:
    """Names the same gaps alike within an hour: what cannot be healed is tried again in the next one."""
    gaps = "; ".join(f"{series} {' '.join(map(str, months))}" for series, months in missing.items())
    return f"{now:%Y-%m-%dT%H} {gaps}"


def heal_sensor(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="heal_missing",
        job_name=HEAL,
        minimum_interval_seconds=60,
        default_status=live_status(settings),
        description="Starts a run when published bars have gaps with the verdict `missing`.",
    )
    def sensor() -> dg.RunRequest | dg.SkipReason:
        if not is_published(settings):
            return dg.SkipReason("Nothing has been published.")
        missing = missing_months(settings)
        if not missing:
            return dg.SkipReason("No bars are missing.")
        return dg.RunRequest(run_key=run_key(missing, datetime.now(UTC)))

    return sensor
