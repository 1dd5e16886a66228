"""The dbt models as assets: the incremental ones on month partitions, the rest unpartitioned."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from dagster_dbt.dbt_manifest import validate_manifest

from ingestion.klines import Month
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from orchestration.charts import price_chart
from orchestration.history import OWNERS, RAW_KLINES
from orchestration.metrics import measuring, resource_keys
from orchestration.partitions import PartitionSpace, run_window
from orchestration.symbols import RAW_SYMBOLS
from warehouse import dbt as warehouse_dbt
from warehouse.build import prepared
from warehouse.dbt import BuildFailed, Window
from warehouse.serving import is_simulated

# One writer at a time on the warehouse file; dagster.yaml gives every pool one slot.
POOL = "warehouse"
BARS = dg.AssetKey("market_data_unified")
# Everything without partitions but klines_gaps: dimensions and seeds, renewed once a day.
DIMENSIONS_GROUP = "dimensions"

# Staging views belong to the partitioned run, because the incremental models read them.
INCREMENTAL = "path:models/staging config.materialized:incremental"
# The view of bars that have landed since the last run; on one machine nothing is newer than the table.
LIVE = "market_data_live"
# Said by what it is, not as the rest: excluding the incremental models would exclude tests that look at them too.
REST = "config.materialized:table config.materialized:seed"

# Follows its inputs wherever they changed; eager() would only look at the newest month, and repairs are in old ones.
FOLLOW_INPUTS = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)


class Translator(DagsterDbtTranslator):
    """Names, groups and partition mappings of the dbt nodes."""

    def __init__(self) -> None:
        # Both raw sources are what raw_klines lands.
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["nodes"].get(unique_id) or manifest["sources"][unique_id]
        if node["resource_type"] == "source":
            return spec.replace_attributes(key=RAW_SYMBOLS if node["name"] == "symbols" else RAW_KLINES)
        has_partitions = node["config"]["materialized"] not in ("table", "seed")
        group = node["meta"].get("dagster", {}).get("group") or ("warehouse" if has_partitions else DIMENSIONS_GROUP)
        return spec.replace_attributes(
            key=dg.AssetKey(node["name"]),
            group_name=group,
            owners=OWNERS,
            automation_condition=None if group == DIMENSIONS_GROUP else FOLLOW_INPUTS,
        )

    def get_partition_mapping(
        self, dbt_resource_props: Mapping[str, Any], dbt_parent_resource_props: Mapping[str, Any]
    ) -> dg.PartitionMapping | None:
        parent = dbt_parent_resource_props
        if parent["resource_type"] == "source" and parent["name"] != "symbols":
            return dg.MultiToSingleDimensionPartitionMapping("month")
        return None


def bars_assets(settings: Settings, space: PartitionSpace, project: DbtProject) -> dg.AssetsDefinition:
    @dbt_assets(
        manifest=project.manifest_path,
        project=project,
        select=INCREMENTAL if settings.target == "duckdb" else f"{INCREMENTAL} {LIVE}",
        name="bars",
        dagster_dbt_translator=Translator(),
        partitions_def=space.months(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys=resource_keys(settings),
        pool=POOL,
    )
    def bars(context: dg.AssetExecutionContext) -> Iterator[Any]:
        window = run_window((context.partition_time_window.start, context.partition_time_window.end))
        yield from _build(context, settings, project, window, _describe_bars)

    return bars


def _build(
    context: dg.AssetExecutionContext,
    settings: Settings,
    project: DbtProject,
    window: Window | None,
    describe: Callable[[dg.AssetExecutionContext, Settings], None],
) -> Iterator[Any]:
    """Run dbt as the only writer; `describe` adds metadata from the warehouse before the run's events are reported.

    What dbt did is reported before its error, if it had one: materializations and failed checks are recorded anyway.
    dbt runs in this process: DbtCliResource would start `dbt --version` (5 s), an adapter (2 s) and another process
    that imports and parses everything again (4 s), each time.
    """
    results: list[dict[str, Any]] = []
    error: BuildFailed | None = None
    arguments = warehouse_dbt.build_args(window, settings.interval)
    with prepared(settings, window) as succeeded:
        try:
            warehouse_dbt.run(settings, [*arguments, *_selection(context)], results.append)
            describe(context, settings)
            if BARS in context.selected_asset_keys:
                succeeded()
        except BuildFailed as failed:
            error = failed
    yield from _asset_events(context, project, results)
    if error is not None:
        raise error


def _selection(context: dg.AssetExecutionContext) -> list[str]:
    """What dbt is to select so that it builds the assets and makes the checks that this run was asked for."""
    found = get_updated_cli_invocation_params_for_context(context, {}, Translator())
    indirect = ["--indirect-selection", found.indirect_selection] if found.indirect_selection else []
    return [*found.selection_args, *indirect]


def _asset_events(
    context: dg.AssetExecutionContext, project: DbtProject, results: list[dict[str, Any]]
) -> Iterator[Any]:
    """Outputs and check results from dbt's log events, as dagster-dbt makes them from the log of its own processes."""
    translator = Translator()
    manifest = validate_manifest(project.manifest_path)
    for result in results:
        event = DbtCoreCliEventMessage(raw_event=result, event_history_metadata={})
        yield from event.to_default_asset_events(manifest, translator, context, project.target_path, project)


def _describe_bars(context: dg.AssetExecutionContext, settings: Settings) -> None:
    """Add rows per month, and a picture of the newest bars, to the metadata of the main table."""
    months = [Month.parse(key) for key in context.partition_keys]
    with measuring(settings, context.resources) as measures:
        rows = measures.bars_by_month(months[0].start, months[-1].end)
        newest = measures.latest_bars(settings.symbols[0], settings.interval, months[-1].end)
    environment = RawZone(settings.raw_root).environment()
    for month in months:
        metadata = {"came_from": str(environment), "dagster/partition_row_count": rows.get(month, 0)}
        context.add_asset_metadata(metadata, asset_key=BARS, partition_key=str(month))
    if newest.num_rows:
        title = f"{settings.symbols[0]} {settings.interval}" + (" (simulated)" if is_simulated(settings) else "")
        context.add_asset_metadata({"chart": price_chart(newest, title)}, asset_key=BARS, partition_key=str(months[-1]))


def dimension_assets(settings: Settings, project: DbtProject) -> dg.AssetsDefinition:
    @dbt_assets(
        manifest=project.manifest_path,
        project=project,
        select=REST,
        name="dimensions",
        dagster_dbt_translator=Translator(),
        required_resource_keys=resource_keys(settings),
        pool=POOL,
    )
    def dimensions(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from _build(context, settings, project, None, _count_rows)

    return dimensions


def _count_rows(context: dg.AssetExecutionContext, settings: Settings) -> None:
    with measuring(settings, context.resources) as measures:
        for key in context.selected_asset_keys:
            rows = measures.row_count(key.to_user_string())
            context.add_asset_metadata({"dagster/row_count": rows}, asset_key=key)
