"""Checks of the main table that dbt tests cannot make: whole as the exchange has it, fresh by the data's own clock."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import dagster as dg

from ingestion.settings import Settings
from orchestration.metrics import measuring, resource_keys
from orchestration.warehouse_assets import BARS, POOL
from warehouse.engine import writing
from warehouse.measure import Gap

# A day's file appears about 09:00 UTC of the next day: the newest bar may be 33 hours old, and some slack.
MAX_AGE = timedelta(hours=36)


def stale_series(newest: Mapping[str, datetime], now: datetime) -> list[str]:
    """The symbols whose newest bar closed too long ago. (When data were materialized says nothing: a backfill of 2019
    would look fresh.)"""
    return [symbol for symbol, closed_at in newest.items() if now - closed_at > MAX_AGE]


def bars_checks(settings: Settings) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(
            "complete",
            asset=BARS,
            description="Between first and last bar nothing is missing that the exchange has. Gaps that archive and "
            "REST both have (verdict exchange) are listed, and right.",
        ),
        dg.AssetCheckSpec("fresh", asset=BARS, description=f"The newest bar closed less than {MAX_AGE} ago."),
    ]

    @dg.multi_asset_check(specs=specs, name="bars_checks", pool=POOL, required_resource_keys=resource_keys(settings))
    def bars_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        # A file can only be read by whose turn it is to write.
        turn = writing(settings) if settings.target == "duckdb" else nullcontext()
        with turn, measuring(settings, context.resources) as measures:
            newest = measures.newest_closes(settings.interval)
            found = measures.gaps()
        yield complete(newest, found)
        yield fresh(newest, datetime.now(UTC))

    return bars_checks


def complete(newest: Mapping[str, datetime], found: Sequence[Gap]) -> dg.AssetCheckResult:
    """Passes when no gap has the verdict `missing`."""
    table = dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "symbol": gap.symbol,
                    "from": gap.first_missing_open_time.isoformat(),
                    "resumed_at": gap.resumed_at.isoformat(),
                    "bars": gap.missing_bars,
                    "verdict": gap.verdict,
                }
            )
            for gap in found
        ],
        schema=dg.TableSchema(
            [
                *(dg.TableColumn(name) for name in ("symbol", "from", "resumed_at")),
                *(dg.TableColumn("bars", "int"), dg.TableColumn("verdict")),
            ]
        ),
    )
    missing = [gap for gap in found if gap.verdict == "missing"]
    return dg.AssetCheckResult(
        check_name="complete",
        passed=bool(newest) and not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "missing_bars": sum(gap.missing_bars for gap in missing),
            "gaps": table,
            "remedy": "`klinehouse heal` asks the exchange for what is missing." if missing else "nothing to do",
        },
    )


def fresh(newest: Mapping[str, datetime], now: datetime) -> dg.AssetCheckResult:
    """Passes when the newest bar of every series is new enough."""
    stale = stale_series(newest, now)
    told = {symbol: closed_at.isoformat() for symbol, closed_at in newest.items()}
    return dg.AssetCheckResult(
        check_name="fresh",
        passed=bool(newest) and not stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"newest_close_time": told, "stale": ", ".join(stale) or "none"},
    )
