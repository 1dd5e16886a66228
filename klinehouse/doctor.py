"""The checks of `klinehouse doctor`."""

from collections.abc import Callable
from dataclasses import dataclass

from ingestion.errors import ConfigurationError, KlinehouseError
from ingestion.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `exit_code` is 0 when it is well."""

    what: str
    ok: bool
    detail: str
    exit_code: int = 0


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that a run needs; never raises for what it finds."""
    quick = settings.model_copy(update={"http_attempts": 2, "http_timeout": 5.0, "warehouse_wait": 0.0})
    return [
        _look("home can be written", lambda: _writable(quick)),
        _look("raw zone can be written", lambda: _raw_zone(quick)),
        _look("archive answers", lambda: _archive(quick)),
        _look("REST answers", lambda: _rest(quick)),
        _look("warehouse can be opened", lambda: _warehouse(quick)),
    ]


def _look(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except KlinehouseError as error:
        return Finding(what, False, str(error), error.exit_code)
    except OSError as error:
        return Finding(what, False, str(error), ConfigurationError.exit_code)


def _writable(settings: Settings) -> str:
    from ingestion.store import write_durably

    probe = settings.home / ".probe"
    write_durably(probe, b"")
    probe.unlink()
    return str(settings.home)


def _raw_zone(settings: Settings) -> str:
    from ingestion.raw_zone import RawZone

    RawZone(settings.raw_root).probe_writable()
    return settings.raw_root


def _archive(settings: Settings) -> str:
    from ingestion.binance.exchange import Exchange

    with Exchange(settings) as exchange:
        simulation = exchange.archive.check()
    return f"{settings.archive_url}" + (f" (simulated, {simulation})" if simulation else "")


def _rest(settings: Settings) -> str:
    from ingestion.binance.exchange import Exchange

    with Exchange(settings) as exchange:
        return f"{exchange.rest.base}: its clock says {exchange.rest.now:%Y-%m-%d %H:%M:%S} UTC"


def _warehouse(settings: Settings) -> str:
    if settings.target == "bigquery":
        from warehouse.bigquery.reading import bars_in_tables

        return f"BigQuery project {settings.bigquery_project}: {bars_in_tables(settings):,} bars"
    from warehouse.engine import connect, writing

    if not settings.warehouse_path.exists():
        return "not built yet"
    with writing(settings), connect(settings):
        return str(settings.warehouse_path)
