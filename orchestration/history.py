"""The asset `raw_klines`: months of klines from the archive into the raw zone, and the check of its quarantine."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dagster as dg
import pyarrow as pa

from ingestion.history.month import MonthResult
from ingestion.history.run import land_history
from ingestion.klines import KLINE_SCHEMA, Month, Series
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings
from orchestration.partitions import PartitionSpace, landing_plan, month_symbol_key

# Single-run backfills have been "beta" since 2024; the warning would be the first thing a user reads.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*backfill_policy.*")

RAW_KLINES = dg.AssetKey("raw_klines")
OWNERS = ["team:market-data"]
# Which version of a month's file a materialization is about: on Google Cloud Storage its generation, see `arrivals`.
VERSION = "version"


@dataclass
class HistoryLander:
    """Lands months from the exchange of the settings. `on_result` hears of each month as it is done."""

    settings: Settings
    on_result: Callable[[MonthResult], None] = field(default=lambda result: None)

    def land(self, series: Sequence[Series], months: Sequence[Month]) -> list[MonthResult]:
        return land_history(self.settings, series, months, on_result=self.on_result)


def backfill_policy(settings: Settings) -> dg.BackfillPolicy:
    """How Dagster cuts a backfill into runs. On one machine a single run shares its download workers best; in the cloud
    runs are spread, and what one of them holds in memory (its events too) is bounded by what it is given."""
    if settings.target == "duckdb":
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(settings.run_partitions)


def month_metadata(result: MonthResult, environment: Environment | None, version: str | None) -> dict[str, object]:
    """What the UI shows of one landed month; where it came from first, so that nobody takes simulated data for real."""
    metadata: dict[str, object] = {
        "came_from": str(environment) if environment else "nothing yet",
        "dagster/partition_row_count": result.rows,
        "outcome": str(result.outcome),
        "downloads": result.downloads,
        "downloaded_bytes": result.downloaded_bytes,
    }
    if version is not None:
        metadata[VERSION] = version
    if result.problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {problem}" for problem in result.problems))
    return metadata


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name, str(column.type), constraints=dg.TableColumnConstraints(nullable=column.nullable)
            )
            for column in schema
        ]
    )


def raw_klines_asset(settings: Settings, space: PartitionSpace) -> dg.AssetsDefinition:
    @dg.asset(
        key=RAW_KLINES,
        partitions_def=space.months_by_symbol(),
        backfill_policy=backfill_policy(settings),
        group_name="ingestion",
        owners=OWNERS,
        kinds={"python", "parquet"},
        description=(
            f"Binance klines at {settings.interval} in the raw zone, one Parquet file per symbol and month, lossless, "
            "verified against the archive's SHA-256. A month that has landed is not downloaded again."
        ),
        metadata={"dagster/column_schema": column_schema(KLINE_SCHEMA), "dagster/uri": settings.raw_root},
    )
    def raw_klines(context: dg.AssetExecutionContext, lander: dg.ResourceParam[HistoryLander]) -> None:
        zone = RawZone(settings.raw_root)
        for series, months in landing_plan(context.partition_keys, settings.interval):
            results = lander.land(series, months)
            environment, versions = zone.environment(), _versions(zone, series, months)
            for result in results:
                key = month_symbol_key(result.month, result.series.symbol)
                metadata = month_metadata(result, environment, versions.get((result.series, result.month)))
                context.add_asset_metadata(metadata, partition_key=key)
            rows = sum(result.rows for result in results)
            context.log.info(f"{', '.join(map(str, series))}: {rows} rows in {len(results)} months")

    return raw_klines


def _versions(zone: RawZone, series: Sequence[Series], months: Sequence[Month]) -> dict[tuple[Series, Month], str]:
    """The versions that the months' files have now. One that somebody replaced after we had landed it is noted as ours,
    and that is right: who follows our materialization reads it as it is now."""
    listings = zone.each(lambda one: zone.history_files(one.interval, [one.symbol], months), series)
    return {(file.series, file.month): file.version for listing in listings for file in listing}


def quarantine_check(settings: Settings) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=RAW_KLINES, description="No file of the exchange is in quarantine.")
    def nothing_in_quarantine() -> dg.AssetCheckResult:
        notes = RawZone(settings.raw_root).quarantined()
        listing = "\n".join(f"- {note['url']}: {note['reason']}" for note in notes[:50])
        return dg.AssetCheckResult(
            passed=not notes,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"files": len(notes)} | ({"reasons": dg.MetadataValue.md(listing)} if notes else {}),
        )

    return nothing_in_quarantine
