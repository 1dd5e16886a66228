"""The commands of `klinehouse`; each is a few lines over the layers below."""

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import stamina
import typer

from ingestion.errors import KlinehouseError, UsageError
from ingestion.klines import Month, months_between
from ingestion.settings import PREFIX, Settings, load_settings
from klinehouse.history_report import print_landed, print_plan
from klinehouse.output import (
    banner,
    err,
    megabytes,
    out,
    print_error,
    print_json,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from ingestion.history.month import MonthResult

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


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Exact crypto candles and indicators: land, build, publish, query."""


@app.command(
    epilog=_examples(
        "klinehouse backfill",
        "klinehouse backfill --symbols BTCUSDT --interval 1h --start 2024-01 --end 2025-01",
    )
)
def backfill(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    json: Json = False,
) -> None:
    """Land, build and publish through Dagster: each month shows in the UI."""
    settings = load_settings(symbols=symbols, interval=interval, start=_day(start, "--start"), max_wait=max_wait)
    results = _backfill(settings, end, quiet=json)
    _report(settings, results, as_json=json)


def _backfill(settings: Settings, end: str | None, *, quiet: bool) -> "list[MonthResult]":
    months = _months(settings, end)
    results: list[MonthResult] = []
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    with progress(len(months) * len(settings.symbols), "start Dagster", quiet=quiet) as bar:
        from orchestration.backfill import backfill as run

        def landed(result: "MonthResult") -> None:
            results.append(result)
            bar.advance()

        # What dbt and Dagster print goes to a log; the UI has it too.
        with (settings.log_dir / "backfill.log").open("a") as log, redirect_stdout(log):
            run(settings, months, on_run=bar.describe, on_month=landed, log=log)
    return results


@app.command(
    epilog=_examples(
        "klinehouse land --symbols BTCUSDT --start 2024-07 --end 2025-02", "klinehouse land --plan --start 2024-07"
    )
)
def land(
    symbols: Symbols = None,
    interval: Interval = None,
    start: Start = None,
    end: End = None,
    max_wait: MaxWait = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be asked for, and ask for nothing.")] = False,
    json: Json = False,
) -> None:
    """Land klines in the raw zone, without Dagster and dbt."""
    from ingestion.history.run import land_history, plan_history

    settings = load_settings(symbols=symbols, interval=interval, start=_day(start, "--start"), max_wait=max_wait)
    months = _months(settings, end)
    if plan:
        print_plan(plan_history(settings, settings.series, months), as_json=json)
        return
    with progress(len(months) * len(settings.symbols), "land", quiet=json) as bar:
        results = land_history(settings, settings.series, months, on_result=lambda result: bar.advance())
    _report(settings, results, as_json=json)


def _report(settings: Settings, results: "Sequence[MonthResult]", *, as_json: bool) -> None:
    """Say what landed; end with DataQuarantined or ExchangeRefused when that is how it went."""
    from ingestion.history.run import raise_for

    _banner(settings)
    print_landed(settings.series, results, _environment(settings), as_json=as_json)
    raise_for(results)


@app.command(epilog=_examples("klinehouse build", "klinehouse build --start 2024-07 --end 2024-08"))
def build(
    start: Start = None,
    end: End = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Build the tables anew from nothing.")] = False,
    json: Json = False,
) -> None:
    """Run dbt over what has landed and publish it, without Dagster."""
    from warehouse.build import build as run
    from warehouse.build import require_window
    from warehouse.serving import publish

    settings = load_settings()
    window = require_window(settings, _instant(start, "--start"), _instant(end, "--end"))
    with progress(2, "build bars and indicators", quiet=json) as bar:
        run(settings, window, full_refresh=full_refresh)
        bar.advance()
        bar.describe("publish")
        published = publish(settings)
        bar.advance()
    _banner(settings)
    if json:
        print_json(dataclasses.asdict(published) | _environment(settings))
    else:
        out.print(
            f"{published.rows:,} rows in {published.files:,} files; {published.months_written:,} months were written."
        )


@app.command(epilog=_examples("klinehouse status", "klinehouse status --json"))
def status(json: Json = False) -> None:
    """Show series, rows, first and last bar, sizes, and where the data came from."""
    from warehouse.status import status as read

    settings = load_settings()
    found = read(settings)
    if json:
        print_json(
            {"home": found.home, **_environment(settings)}
            | {"series": [dataclasses.asdict(series) for series in found.series], "quarantined": found.quarantined}
        )
        return
    _banner(settings)
    columns = ["layer", "symbol", "interval", "rows", "first open", "last close", "size", "files", "from"]
    rows = [
        (
            *(one.layer, one.symbol, one.interval, one.rows, one.first_open_time, one.last_close_time),
            *(megabytes(one.bytes), one.files, ", ".join(one.sources)),
        )
        for one in found.series
    ]
    print_table(f"{found.home}: data of {found.environment or 'nothing yet'}", columns, rows)
    for note in found.quarantined:
        err.print(f"quarantined: {note['url']}: {note['reason']}", soft_wrap=True, markup=False)


@app.command(
    epilog=_examples(
        "klinehouse query \"select * from market_data_unified where symbol = 'BTCUSDT' limit 5\"",
        'klinehouse query --json "select symbol, max(high) from market_data_unified group by all"',
    )
)
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the published tables, as DuckDB understands it.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to show in a table; JSON has all.")] = 50,
    json: Json = False,
) -> None:
    """Ask the published warehouse. Read-only; it sees nothing but the published tables."""
    from warehouse.serving import run_query

    settings = load_settings()
    result = run_query(settings, sql, None if json else limit + 1)
    _banner(settings)
    if json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
        return
    print_table("", result.columns, result.rows[:limit])
    if len(result.rows) > limit:
        err.print(f"Only the first {limit} rows are shown; --limit shows more, --json all.")


@app.command(epilog=_examples("klinehouse config", "KLINEHOUSE_HOME=/data/klinehouse klinehouse config --json"))
def config(json: Json = False) -> None:
    """Print the effective settings; passwords in URLs are masked."""
    settings = load_settings()
    values = settings.masked()
    if json:
        print_json(values)
        return
    fields = type(settings).model_fields
    rows = [[f"{PREFIX}{name}".upper(), str(value), fields[name].description] for name, value in values.items()]
    print_table("", ["setting", "value", "meaning"], rows)


@app.command(
    epilog=_examples(
        "klinehouse simulate --port 8700",
        "klinehouse simulate --data ./recorded",
        "klinehouse simulate --now 2025-06-15T12:00 --outage 2023-03-24T12:39:41/2023-03-24T14:00",
        "klinehouse simulate --fault latency=0.05 --fault errors=0.05 --fault stale_checksum=0.1",
    )
)
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8700,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same market.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Serve the recordings in this folder instead.")] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE; a wrong name lists them all. Repeatable.")
    ] = None,
    now: Annotated[
        str | None, typer.Option(help="UTC at which the exchange's clock stands still. Default: now.")
    ] = None,
    outage: Annotated[
        list[str] | None, typer.Option(help="HALT/RESUME in UTC, or HALT/RESUME/QUIET_MINUTES_BEFORE. Repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a simulated exchange: its archive of kline files and its REST API.

    GET /simulator/fired tells the faults that fired, /simulator/requests the requests of each kind.
    """
    from ingestion.simulator.faults import Faults
    from ingestion.simulator.outages import Outage, utc_instant
    from ingestion.simulator.server import build_app, serve

    def ready(address: str) -> None:
        if json:
            print_json({"url": address, "seed": None if data else seed, "data": data})
            sys.stdout.flush()
        else:
            err.print(f"Simulated exchange on {address}; stop it with Ctrl-C. Use it from another terminal:")
            err.print(f"  KLINEHOUSE_ARCHIVE_URL={address} KLINEHOUSE_HOME=.klinehouse-simulated klinehouse backfill")

    exchange = build_app(
        seed,
        data,
        faults=Faults.parse(fault or ()),
        now=utc_instant(now) if now else None,
        outages=[Outage.parse(text) for text in outage or ()],
    )
    serve(exchange, host, port, ready)


@app.command(epilog=_examples("klinehouse doctor"))
def doctor(json: Json = False) -> None:
    """Check that the disk can be written, the exchange reached and the warehouse opened."""
    from klinehouse.doctor import examine

    findings = examine(load_settings())
    if json:
        print_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        rows = [["ok" if finding.ok else "FAILED", finding.what, finding.detail] for finding in findings]
        print_table("", ["result", "what", "detail"], rows)
    raise typer.Exit(max((finding.exit_code for finding in findings), default=0))


@app.command(epilog=_examples("klinehouse demo", "klinehouse demo --start 2024-01 --end 2024-04"))
def demo(
    start: Annotated[str, typer.Option(help="First month, YYYY-MM.")] = "2020-01",
    end: Annotated[str, typer.Option(help="Month before which to stop, YYYY-MM.")] = "2026-01",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same market.")] = 1,
) -> None:
    """Fill a home of its own from the simulated exchange and show what is in it."""
    from ingestion.simulator.server import build_app, running
    from klinehouse.demo import show

    home = os.environ.get(f"{PREFIX}HOME", ".klinehouse-demo")
    with running(build_app(seed)) as address:
        settings = load_settings(home=home, archive_url=address, start=_day(start, "--start"))
        _backfill(settings, end, quiet=False)
    banner(_simulation(settings))
    show(settings)


@app.command(epilog=_examples("klinehouse up", "KLINEHOUSE_UI_PORT=3001 klinehouse up"))
def up() -> None:
    """Open the Dagster UI, with its daemon, on this home. Ctrl-C stops both."""
    from orchestration.instance import prepare_home

    settings = load_settings()
    root = Path(__file__).parent.parent
    environment = {
        "DAGSTER_HOME": str(prepare_home(settings)),
        f"{PREFIX}HOME": str(settings.home),
    }
    banner(_simulation(settings))
    err.print(f"Dagster UI on http://{settings.ui_host}:{settings.ui_port}", highlight=False)
    arguments = ["dev", "-w", str(root / "workspace.yaml"), "-h", settings.ui_host, "-p", str(settings.ui_port)]
    dagster = Path(sys.executable).with_name("dagster")
    os.chdir(root)
    os.execve(dagster, [str(dagster), *arguments], os.environ | environment)  # noqa: S606 - our own program, no shell


def _months(settings: Settings, end: str | None) -> list[Month]:
    stop = _day(end, "--end") or datetime.now(UTC).date() + timedelta(days=1)
    months = months_between(settings.start, stop)
    if not months:
        raise UsageError(f"No time lies between {settings.start} and {stop}.", "--end is the first day left out.")
    return months


def _day(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is not a date.", "Write it as 2024-07 or 2024-07-15.") from error


def _instant(text: str | None, option: str) -> datetime | None:
    day = _day(text, option)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None


def _environment(settings: Settings) -> dict[str, str | None]:
    from ingestion.raw_zone import RawZone

    found = RawZone(settings.raw_root).environment()
    return {
        "source_environment": found.source_environment if found else None,
        "simulation": found.simulation if found else None,
    }


def _simulation(settings: Settings) -> str | None:
    return _environment(settings)["simulation"]


def _banner(settings: Settings) -> None:
    banner(_simulation(settings))


def main() -> None:
    """Entry point: errors of ours become one line and their exit code; `--debug` lets tracebacks through."""
    arguments = sys.argv[1:]
    # Retries are logged, not printed: stamina would write them to standard output, between the answer's lines.
    stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.LoggingOnRetryHook])
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        app()
    except KlinehouseError as error:
        if "--debug" in arguments:
            raise
        print_error(error, as_json="--json" in arguments)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
