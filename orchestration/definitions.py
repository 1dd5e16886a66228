"""Everything that Dagster loads, assembled by one function that tests call with other settings and resources."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject

from ingestion.settings import Settings, load_settings
from orchestration import (
    checks,
    healing,
    history,
    live,
    schedules,
    serving,
    standing,
    symbols,
    warehouse_assets,
    watching,
)
from orchestration.partitions import PartitionSpace, current_partition_space
from warehouse import dbt


def build_defs(settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The real asset graph. `resource_overrides` replaces resources by name: `lander`, and on BigQuery `bigquery` and
    `gcs`. Nothing is asked of a network, and no client is made."""
    settings = settings or load_settings()
    space = current_partition_space(settings)
    manifest = dbt.manifest_path(settings)
    project = DbtProject(project_dir=dbt.PROJECT_DIR, target_path=manifest.parent, profiles_dir=dbt.PROJECT_DIR)
    of_google, google_sensors = _on_google(settings, space) if settings.target == "bigquery" else ({}, [])
    resources: dict[str, Any] = {"lander": history.HistoryLander(settings), **of_google}
    return dg.Definitions(
        assets=[
            history.raw_klines_asset(settings, space),
            symbols.raw_symbols_asset(settings),
            warehouse_assets.bars_assets(settings, space, project),
            warehouse_assets.dimension_assets(settings, project),
            *serving.serving_assets(settings),
            live.live_klines_asset(settings),
        ],
        asset_checks=[
            history.quarantine_check(settings),
            checks.bars_checks(settings),
            standing.partitions_check(settings, space),
            watching.arriving_check(settings),
        ],
        jobs=[*schedules.jobs(settings), healing.heal_job(settings)],
        schedules=schedules.schedules(space),
        sensors=[
            schedules.automation(),
            live.keep_streaming(settings),
            healing.heal_sensor(settings),
            watching.watch_ingestion(settings),
            watching.note_failures(settings),
            *google_sensors,
        ],
        resources=resources | dict(resource_overrides or {}),
    )


def _on_google(settings: Settings, space: PartitionSpace) -> tuple[dict[str, Any], list[dg.SensorDefinition]]:
    """Resources and sensors of the BigQuery target."""
    # Google's libraries take most of a second to import, in each process that Dagster starts.
    from orchestration import arrivals, google

    return google.resources(settings), arrivals.sensors(settings, space)


defs = build_defs()
