"""Checks of the main table that dbt tests cannot make: whole against the grid, fresh by the data's own clock."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from ingestion.settings import Settings
from orchestration.warehouse_assets import BARS, POOL
from warehouse.engine import connect, writing
from warehouse.measure import SeriesExtent, extents, holes_by_month

# A day's file appears about 09:00 UTC of the next day: the newest bar may be 33 hours old, and some slack.
MAX_AGE = timedelta(hours=36)


def stale_series(series: Sequence[SeriesExtent], now: datetime) -> list[SeriesExtent]:
    """The series whose newest bar closed too long ago. (When data were materialized says nothing: a backfill of 2019
    would look fresh.)"""
    return [extent for extent in series if now - extent.last_close_time > MAX_AGE]


def bars_checks(settings: Settings) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            "complete", asset=BARS, description="Between first and last bar no bar of the grid is missing."
        ),
        dg.AssetCheckSpec("fresh", asset=BARS, description=f"The newest bar closed less than {MAX_AGE} ago."),
    ]

    @dg.multi_asset_check(specs=specs, name="bars_checks", pool=POOL)
    def bars_checks() -> Iterator[dg.AssetCheckResult]:
        with writing(settings), connect(settings) as connection:
            series = extents(connection, settings.interval)
            holes = holes_by_month(connection, settings.interval)
        yield _complete(series, holes)
        yield _fresh(series, datetime.now(UTC))

    return bars_checks


def _complete(series: Sequence[SeriesExtent], holes: Sequence[tuple[str, str, int]]) -> dg.AssetCheckResult:
    table = dg.MetadataValue.table(
        [dg.TableRecord({"symbol": symbol, "month": month, "missing": missing}) for symbol, month, missing in holes],
        schema=dg.TableSchema([dg.TableColumn("symbol"), dg.TableColumn("month"), dg.TableColumn("missing", "int")]),
    )
    return dg.AssetCheckResult(
        check_name="complete",
        passed=bool(series) and not holes,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing_bars": sum(extent.missing for extent in series), "holes": table},
    )


def _fresh(series: Sequence[SeriesExtent], now: datetime) -> dg.AssetCheckResult:
    stale = stale_series(series, now)
    newest = {extent.symbol: extent.last_close_time.isoformat() for extent in series}
    return dg.AssetCheckResult(
        check_name="fresh",
        passed=bool(series) and not stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"newest_close_time": newest, "stale": ", ".join(extent.symbol for extent in stale) or "none"},
    )
