"""What all commands share: the application, common options, and how dates are read and the data's origin is named."""

import socket
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer

from ingestion.errors import UsageError
from ingestion.klines import Month, months_between
from ingestion.settings import Settings, load_settings
from klinehouse import logs
from klinehouse.output import banner

app = typer.Typer(
    help="Exact crypto candles and indicators: land, build, publish, query.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables and progress.")]
Symbols = Annotated[str | None, typer.Option(help="Symbols, separated by commas. Default: KLINEHOUSE_SYMBOLS.")]
Interval = Annotated[str | None, typer.Option(help="Base interval, such as 5m. Default: KLINEHOUSE_INTERVAL.")]
Start = Annotated[str | None, typer.Option(help="First day or month, YYYY-MM[-DD]. Default: KLINEHOUSE_START.")]
End = Annotated[str | None, typer.Option(help="Day or month before which to stop, YYYY-MM[-DD]. Default: now.")]

MaxWait = Annotated[
    float | None,
    typer.Option(help="Seconds of rate limits and bans to wait out in all. Default: KLINEHOUSE_MAX_WAIT."),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format", help="Also write what happens to standard error: json or text.", callback=logs.configure
    ),
]


def examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


def history_settings(
    symbols: str | None, interval: str | None, start: str | None, max_wait: float | None = None
) -> Settings:
    """The settings with the options that commands about history share."""
    return load_settings(symbols=symbols, interval=interval, start=day(start, "--start"), max_wait=max_wait)


def months_until(settings: Settings, end: str | None) -> list[Month]:
    stop = day(end, "--end") or datetime.now(UTC).date() + timedelta(days=1)
    months = months_between(settings.start, stop)
    if not months:
        raise UsageError(f"No time lies between {settings.start} and {stop}.", "--end is the first day left out.")
    return months


def day(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a date.", "Write it as 2024-07 or 2024-07-15.") from error


def instant(text: str | None, option: str) -> datetime | None:
    found = day(text, option)
    return datetime(found.year, found.month, found.day, tzinfo=UTC) if found else None


def parse_instant(text: str, option: str) -> datetime:
    """An instant such as 2024-03-05T12:00, UTC unless it says otherwise."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a time.", "Write it as 2024-03-05T12:00, in UTC.") from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def environment_of(settings: Settings) -> dict[str, str | None]:
    from ingestion.raw_zone import RawZone

    found = RawZone(settings.raw_root).environment()
    return {
        "source_environment": found.source_environment if found else None,
        "simulation": found.simulation if found else None,
    }


def simulation_of(settings: Settings) -> str | None:
    return environment_of(settings)["simulation"]


def show_banner(settings: Settings) -> None:
    banner(simulation_of(settings))


def where_bars_end(settings: Settings) -> datetime:
    """When the newest published bar of the base interval closed; a year ago when there is none, so that the clock of a
    simulated exchange that goes faster than time does not soon tell of bars to come."""
    from ingestion.errors import ConfigurationError
    from warehouse.serving import run_query

    sql = 'select max(close_time) from market_data_unified where "interval" = ?'
    try:
        newest = run_query(settings, sql, parameters=[settings.interval]).rows[0][0]
    except ConfigurationError:  # nothing has been published
        newest = None
    return newest or datetime.now(UTC) - timedelta(days=365)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
