"""Build the warehouse from the raw zone without an orchestrator: dbt over a window, then publish."""

from datetime import datetime

from ingestion.errors import ConfigurationError
from ingestion.klines import Month, month_window, months_between
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from warehouse import dbt, raw_source
from warehouse.dbt import Window
from warehouse.engine import connect, writing


def prepare(settings: Settings, window: Window) -> None:
    """Make the warehouse ready for a dbt run over `window`: schemas, and the raw source that dbt reads."""
    with connect(settings) as connection:
        raw_source.prepare(
            connection, RawZone(settings.raw_root), settings.interval, month_window((window.start, window.end))
        )


def prepare_symbols(settings: Settings) -> None:
    """Make the warehouse ready for a dbt run over tables without a window."""
    with connect(settings) as connection:
        raw_source.prepare_symbols(connection, RawZone(settings.raw_root))


def build(settings: Settings, window: Window, *, full_refresh: bool = False) -> None:
    """Run all models and tests over `window`; with `full_refresh`, from nothing."""
    with writing(settings):
        prepare(settings, window)
        dbt.run(settings, dbt.build_args(window, settings.interval, full_refresh=full_refresh))


def require_window(settings: Settings, start: datetime | None = None, end: datetime | None = None) -> Window:
    """The window of all landed months of the base interval, cut to `[start, end)`.

    Raises ConfigurationError when nothing has landed there.
    """
    months = landed_months(settings)
    first = max(months[0].start, start or months[0].start) if months else None
    last = min(months[-1].end, end or months[-1].end) if months else None
    if first is None or last is None or first >= last:
        raise ConfigurationError(
            f"Nothing of {settings.interval} has landed in {settings.raw_root} for that time.",
            "Run `klinehouse backfill` or `klinehouse land` first.",
        )
    return Window.around(first, last)


def landed_months(settings: Settings) -> list[Month]:
    """Every month from the first landed one of the base interval to the last; none when nothing has landed."""
    months = [file.month for file in RawZone(settings.raw_root).history_files(interval=settings.interval)]
    return months_between(min(months).first_day, max(months).next.first_day) if months else []
