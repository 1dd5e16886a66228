"""Noticing that something stands still or failed: the check of the live path, and the sensor of failed runs."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from ingestion.binance.exchange import Exchange
from ingestion.errors import ExchangeRefused
from ingestion.settings import Settings
from orchestration.live import live_status
from orchestration.serving import is_published, read_asset, read_table
from warehouse.serving import run_query

STALLED_AFTER = timedelta(minutes=10)
# Older bars need not be read: a symbol without a newer one stands still.
_LOOKED_BACK = timedelta(days=3)
# Of what readers see. (As a check of `live_klines` the UI would show it as not evaluated once another batch has come.)
_CHECK = "arriving"


def stalled(newest: Mapping[str, datetime], symbols: Sequence[str], now: datetime) -> list[str]:
    """The symbols whose newest bar closed more than STALLED_AFTER before `now`, which is the exchange's clock."""
    return [symbol for symbol in symbols if symbol not in newest or now - newest[symbol] > STALLED_AFTER]


def arriving_check(settings: Settings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=read_asset(settings),
        name=_CHECK,
        description=f"A bar of each symbol closed in the last {STALLED_AFTER // timedelta(minutes=1)} minutes.",
    )
    def arriving() -> dg.AssetCheckResult:
        found = _judged(settings)
        return dg.AssetCheckResult(passed=found.passed, severity=found.severity, metadata=dict(found.metadata))

    return arriving


def watch_ingestion(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="watch_ingestion",
        minimum_interval_seconds=60,
        default_status=live_status(settings),
        description=f"Evaluates the check `{_CHECK}` every minute, by the exchange's clock.",
    )
    def sensor() -> dg.SensorResult | dg.SkipReason:
        if not is_published(settings):
            return dg.SkipReason("Nothing has been published.")
        return dg.SensorResult(asset_events=[_judged(settings)])

    return sensor


def _judged(settings: Settings) -> dg.AssetCheckEvaluation:
    try:
        with Exchange(settings) as exchange:
            now = exchange.rest.now
    except ExchangeRefused as refused:
        return _evaluation(settings, passed=False, metadata={"reason": str(refused)})
    rows = run_query(
        settings,
        # Engines quote names differently; after a dot a reserved word is a name without quotes.
        f"""select bars.symbol, max(bars.close_time) from {read_table(settings)} as bars
        where bars.interval = ? and bars.open_time >= ? group by bars.symbol""",
        parameters=[settings.interval, now - _LOOKED_BACK],
    ).rows
    late = stalled(dict(rows), settings.symbols, now)
    metadata = {"exchange_time": now.isoformat(), "stalled": ", ".join(late) or "none"}
    return _evaluation(settings, passed=not late, metadata=metadata)


def _evaluation(settings: Settings, *, passed: bool, metadata: Mapping[str, str]) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        check_name=_CHECK,
        asset_key=read_asset(settings),
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=dict(metadata),
    )


def note_failures(settings: Settings) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name="note_failures",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Adds a line to logs/failed_runs.jsonl for each run that failed.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> None:
        line = {
            "failed_at": datetime.now(UTC).isoformat(),
            "run": context.dagster_run.run_id,
            "job": context.dagster_run.job_name,
            "error": context.failure_event.message,
        }
        context.log.error(json.dumps(line))
        settings.log_dir.mkdir(parents=True, exist_ok=True)
        with (settings.log_dir / "failed_runs.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    return sensor
