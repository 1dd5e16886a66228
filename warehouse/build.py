"""Build the warehouse from the raw zone without an orchestrator: dbt over a window, then publish."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from ingestion.errors import ConfigurationError
from ingestion.klines import Month, month_window, months_between
from ingestion.raw_zone import RawZone
from ingestion.retirement import retire
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt, raw_source
from warehouse.dbt import Window
from warehouse.engine import connect, writing


@contextmanager
def prepared(settings: Settings, window: Window | None) -> Iterator[Callable[[], None]]:
    """The warehouse ready for a dbt run over `window` (None: over tables that have none), and the only writer.

    Yields what is to be called when the run has succeeded: it notes which versions of the landed months were read.
    """
    with writing(settings):
        zone = RawZone(settings.raw_root)
        months = month_window((window.start, window.end)) if window else []
        if window is not None and _is_whole(window, months):
            retire(zone, StreamZone(settings.raw_root), months)
        yield _PREPARED[settings.target](settings, zone, window, months)


def _prepared_duckdb(
    settings: Settings, zone: RawZone, window: Window | None, months: Sequence[Month]
) -> Callable[[], None]:
    versions: raw_source.Versions = {}
    with connect(settings) as connection:
        if window is None:
            raw_source.prepare_symbols(connection, zone)
        else:
            versions = raw_source.prepare(connection, zone, settings.interval, months)

    def succeeded() -> None:
        if window is not None and _is_whole(window, months):
            with connect(settings) as connection:
                raw_source.note_built(connection, months, versions)

    return succeeded


def _prepared_bigquery(
    settings: Settings, zone: RawZone, window: Window | None, months: Sequence[Month]
) -> Callable[[], None]:
    from warehouse.bigquery import raw_source as source
    from warehouse.bigquery.client import opened

    versions: raw_source.Versions = {}
    with opened(settings) as warehouse:
        if window is None:
            source.prepare_symbols(warehouse, zone)
        else:
            versions = source.prepare(warehouse, zone, settings.interval, months)

    def succeeded() -> None:
        if window is not None and _is_whole(window, months):
            with opened(settings) as warehouse:
                source.note_built(warehouse, settings.interval, months, versions)

    return succeeded


_PREPARED = {"duckdb": _prepared_duckdb, "bigquery": _prepared_bigquery}


def _is_whole(window: Window, months: Sequence[Month]) -> bool:
    """Whether a window is whole months: a run over a part of one leaves the rest of it as it was built before."""
    return window.start == months[0].start and window.end == months[-1].end


def build(settings: Settings, window: Window, *, full_refresh: bool = False) -> None:
    """Run all models and tests over `window`; with `full_refresh`, from nothing."""
    with prepared(settings, window) as succeeded:
        dbt.run(settings, dbt.build_args(window, settings.interval, full_refresh=full_refresh))
        succeeded()


def build_changed(settings: Settings) -> list[Window]:
    """Build the months that changed in the raw zone since they were built, and nothing else; returns their windows."""
    windows = stretches(changed_months(settings))
    for window in windows:
        build(settings, window)
    return windows


def changed_months(settings: Settings) -> list[Month]:
    """The months of the base interval that landed, changed or went since the warehouse was built from them."""
    landed = raw_source.landed_versions(RawZone(settings.raw_root), settings.interval)
    built = _BUILT[settings.target](settings)
    keys = {key for key in landed.keys() | built.keys() if landed.get(key) != built.get(key)}
    return sorted({month for _, month in keys})


def _built_duckdb(settings: Settings) -> raw_source.Versions:
    if not settings.warehouse_path.exists():
        return {}
    with writing(settings), connect(settings) as connection:
        return raw_source.built_versions(connection)


def _built_bigquery(settings: Settings) -> raw_source.Versions:
    from warehouse.bigquery.client import opened
    from warehouse.bigquery.raw_source import built_versions

    with opened(settings) as warehouse:
        return built_versions(warehouse, settings.interval)


_BUILT = {"duckdb": _built_duckdb, "bigquery": _built_bigquery}


def stretches(months: Sequence[Month]) -> list[Window]:
    """Windows of months that follow each other; `months` are in order."""
    windows: list[Window] = []
    for month in months:
        if windows and windows[-1].end == month.start:
            windows[-1] = Window(windows[-1].start, month.end)
        else:
            windows.append(Window(month.start, month.end))
    return windows


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
    """Every month from the first landed one of the base interval to the last, by stream too; none when nothing has
    landed."""
    months = [file.month for file in RawZone(settings.raw_root).history_files(interval=settings.interval)]
    months += [Month.containing(file.day) for file in StreamZone(settings.raw_root).files()]
    return months_between(min(months).first_day, max(months).next.first_day) if months else []
