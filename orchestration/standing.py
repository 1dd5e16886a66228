"""The standing check of all partitions: which are failed, stale or missing now, whoever ran last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from ingestion.history.coverage import SeriesCoverage, State, coverage
from ingestion.klines import Month
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from orchestration.history import RAW_KLINES
from orchestration.partitions import PartitionSpace, month_symbol_key
from orchestration.warehouse_assets import BARS
from warehouse.build import changed_months


@dataclass(frozen=True)
class Standing:
    """Partition keys by what is wrong with them.

    failed: the last run of it failed. stale: the raw zone has changed since the warehouse was built from it. missing: a
    month that was traded, or a part of it, has not landed.
    """

    failed: tuple[str, ...]
    stale: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        return not (self.failed or self.stale or self.missing)


def judge(
    statuses: Mapping[str, AssetPartitionStatus | None], changed: Sequence[Month], covered: Sequence[SeriesCoverage]
) -> Standing:
    """Put together what Dagster, the warehouse and the raw zone know. The running month is never missing."""
    failed = sorted(key for key, status in statuses.items() if status == AssetPartitionStatus.FAILED)
    missing = [
        str(month_symbol_key(cell.month, line.series.symbol))
        for line in covered
        for cell in line.cells[:-1]
        if cell.state in (State.MISSING, State.HOLE)
    ]
    return Standing(tuple(failed), tuple(str(month) for month in changed), tuple(missing))


def partitions_check(settings: Settings, space: PartitionSpace) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=BARS,
        description="No partition is failed, stale (its raw data changed since it was built) or missing.",
    )
    def partitions_stand(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        statuses = {
            **_statuses(context.instance, RAW_KLINES, space.months_by_symbol()),
            **_statuses(context.instance, BARS, space.months()),
        }
        covered = coverage(RawZone(settings.raw_root), settings.series, Month.containing(settings.start))
        standing = judge(statuses, changed_months(settings), covered)
        return dg.AssetCheckResult(
            passed=standing.is_well, severity=dg.AssetCheckSeverity.WARN, metadata=_metadata(standing)
        )

    return partitions_stand


def _statuses(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: dg.PartitionsDefinition[Any]
) -> Mapping[str, AssetPartitionStatus | None]:
    return instance.get_status_by_partition(key, partitions.get_partition_keys(), partitions) or {}


def _metadata(standing: Standing) -> dict[str, Any]:
    named = vars(standing)
    listing = "\n".join(f"- {what}: {', '.join(keys[:50])}" for what, keys in named.items() if keys)
    return {
        **{what: len(keys) for what, keys in named.items()},
        "partitions": dg.MetadataValue.md(listing or "All partitions are landed, built and current."),
    }
