"""Jobs, and when they run. Schedules are off until somebody switches them on in the UI."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from ingestion.settings import Settings
from orchestration.history import RAW_KLINES
from orchestration.live import LIVE_KLINES, STREAM
from orchestration.partitions import PartitionSpace, month_symbol_key, refresh_months
from orchestration.serving import SERVING, read_asset
from orchestration.symbols import RAW_SYMBOLS
from orchestration.warehouse_assets import BARS, DIMENSIONS_GROUP, LIVE

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

LAND = "land_history"
BUILD = "build_bars"
PUBLISH = "publish"
SYMBOLS = "land_symbols"
HEALTH = "check_health"


def jobs(settings: Settings) -> "list[UnresolvedAssetJobDefinition]":
    # Seeds are of this group too, read by a dimension or not.
    dimensions = dg.AssetSelection.groups(DIMENSIONS_GROUP) | dg.AssetSelection.assets("klines_gaps")
    published = dimensions
    if settings.target == "duckdb":
        published = dimensions | dg.AssetSelection.assets(SERVING)
    live = () if settings.target == "duckdb" else (LIVE,)
    return [
        dg.define_asset_job(LAND, dg.AssetSelection.assets(RAW_KLINES), description="Exchange to raw zone."),
        dg.define_asset_job(SYMBOLS, dg.AssetSelection.assets(RAW_SYMBOLS), description="What the exchange trades."),
        dg.define_asset_job(
            BUILD,
            dg.AssetSelection.assets(
                "stg_klines", BARS, "int_klines_gaps", "int_bars_of_days", "klines_reconciliation", *live
            ),
            description="Raw zone to bars with indicators, their gaps, and what sources disagreed about.",
        ),
        dg.define_asset_job(PUBLISH, published, description="Dimensions, then serving files where readers read files."),
        dg.define_asset_job(
            STREAM,
            dg.AssetSelection.assets(LIVE_KLINES).without_checks(),
            # One process, not one that waits for another.
            executor_def=dg.in_process_executor,
            description="Bus to bars, batch by batch; a sensor keeps it alive.",
        ),
        dg.define_asset_job(
            HEALTH,
            dg.AssetSelection.checks(
                *(dg.AssetCheckKey(BARS, name) for name in ("complete", "fresh", "partitions_stand")),
                dg.AssetCheckKey(RAW_KLINES, "nothing_in_quarantine"),
                dg.AssetCheckKey(read_asset(settings), "arriving"),
            ),
            description="The standing checks, without building anything.",
        ),
    ]


def schedules(space: PartitionSpace) -> list[dg.ScheduleDefinition]:
    # Daily files appear between 08:30 and 08:45 UTC of the next day.
    @dg.schedule(name="refresh_history", job_name=LAND, cron_schedule="15 9 * * *", execution_timezone="UTC")
    def refresh_history(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        for month in refresh_months(context.scheduled_execution_time or datetime.now(UTC)):
            for symbol in space.symbols:
                yield dg.RunRequest(partition_key=month_symbol_key(month, symbol))

    dimensions = dg.ScheduleDefinition(
        name="refresh_dimensions", job_name=PUBLISH, cron_schedule="10 0 * * *", execution_timezone="UTC"
    )
    health = dg.ScheduleDefinition(
        name="refresh_health", job_name=HEALTH, cron_schedule="45 9 * * *", execution_timezone="UTC"
    )
    symbols = dg.ScheduleDefinition(
        name="refresh_symbols", job_name=SYMBOLS, cron_schedule="0 6 1 * *", execution_timezone="UTC"
    )
    return [refresh_history, dimensions, health, symbols]


def automation() -> dg.AutomationConditionSensorDefinition:
    """Builds the months that landing changed, then publishes."""
    return dg.AutomationConditionSensorDefinition("follow_inputs", target=dg.AssetSelection.all())
