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


@dataclass
class HistoryLander:
    """Lands months from the exchange of the settings. `on_result` hears of each month as it is done."""

    settings: Settings
    on_result: Callable[[MonthResult], None] = field(default=lambda result: None)

    def land(self, series: Series, months: Sequence[Month]) -> list[MonthResult]:
        return land_history(self.settings, [series], months, on_result=self.on_result)


def month_metadata(result: MonthResult, environment: Environment | None) -> dict[str, object]:
    """What the UI shows of one landed month; where it came from first, so that nobody takes simulated data for real."""
    metadata: dict[str, object] = {
        "came_from": str(environment) if environment else "nothing yet",
        "dagster/partition_row_count": result.rows,
        "outcome": str(result.outcome),
        "downloads": result.downloads,
        "downloaded_bytes": result.downloaded_bytes,
    }
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
        backfill_policy=dg.BackfillPolicy.single_run(),
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
        for series, months in landing_plan(context.partition_keys, settings.interval).items():
            results = lander.land(series, months)
            environment = RawZone(settings.raw_root).environment()
            for result in results:
                key = month_symbol_key(result.month, series.symbol)
                context.add_asset_metadata(month_metadata(result, environment), partition_key=key)
            rows = sum(result.rows for result in results)
            context.log.info(f"{series}: {rows} rows in {len(results)} months")

    return raw_klines


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
