"""Commands about the installation: config, doctor, simulate, demo, up."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ingestion.settings import PREFIX, load_settings
from klinehouse.app import Json, app, day, examples, free_port, simulation_of, where_bars_end
from klinehouse.commands.history import run_backfill
from klinehouse.output import banner, err, print_json, print_table


@app.command(epilog=examples("klinehouse config", "KLINEHOUSE_HOME=/data/klinehouse klinehouse config --json"))
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
    epilog=examples(
        "klinehouse simulate --port 8700",
        "klinehouse simulate --data ./recorded",
        "klinehouse simulate --now 2025-06-15T12:00 --outage 2023-03-24T12:39:41/2023-03-24T14:00",
        "klinehouse simulate --fault latency=0.05 --fault errors=0.05 --fault stale_checksum=0.1",
        "klinehouse simulate --speed 60 --truth closed.jsonl --fault stream_drop=0.01",
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
        str | None, typer.Option(help="UTC at which the exchange's clock starts, or stands still. Default: now.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0, max=100_000, help="How fast the clock goes; 0 stands still. Default: 0 with --now, or else 1."
        ),
    ] = None,
    outage: Annotated[
        list[str] | None, typer.Option(help="HALT/RESUME in UTC, or HALT/RESUME/QUIET_MINUTES_BEFORE. Repeatable.")
    ] = None,
    symbols_extra: Annotated[
        int, typer.Option(min=0, max=999, help="List so many more symbols: SIM001USDT, SIM002USDT ...")
    ] = 0,
    truth: Annotated[
        Path | None, typer.Option(help="Append a JSON line for each bar that closes in a series once subscribed.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a simulated exchange: its archive of kline files, its REST API and its WebSocket streams.

    GET /simulator/fired tells the faults that fired, /simulator/requests the requests of each kind, /simulator/stream
    the address of the streams.
    """
    from ingestion.simulator.clock import clock_from
    from ingestion.simulator.faults import Faults
    from ingestion.simulator.outages import Outage, utc_instant
    from ingestion.simulator.server import build_app, serve

    def ready(address: str) -> None:
        stream_url = None if data else address.replace("http", "ws", 1)
        if json:
            print_json({"url": address, "stream_url": stream_url, "seed": None if data else seed, "data": data})
            sys.stdout.flush()
        else:
            streams = f", streams on {stream_url}" if stream_url else ""
            err.print(f"Simulated exchange on {address}{streams}; stop it with Ctrl-C. Elsewhere:", soft_wrap=True)
            err.print(
                f"  KLINEHOUSE_ARCHIVE_URL={address} KLINEHOUSE_HOME=.klinehouse-simulated klinehouse backfill",
                soft_wrap=True,
            )

    exchange = build_app(
        seed,
        data,
        faults=Faults.parse(fault or ()),
        now=clock_from(utc_instant(now) if now else None, speed),
        outages=[Outage.parse(text) for text in outage or ()],
        more_symbols=symbols_extra,
        truth=truth,
    )
    serve(exchange, host, port, ready)


@app.command(epilog=examples("klinehouse doctor"))
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


@app.command(epilog=examples("klinehouse demo", "klinehouse demo --start 2024-01 --end 2024-04"))
def demo(
    start: Annotated[str, typer.Option(help="First month, YYYY-MM.")] = "2020-01",
    end: Annotated[str, typer.Option(help="Month before which to stop, YYYY-MM.")] = "2026-01",
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same market.")] = 1,
    live: Annotated[float, typer.Option(min=0, help="Seconds of live bars at the end.")] = 60.0,
) -> None:
    """Fill a home of its own from the simulated exchange, show what is in it, and let live bars come."""
    from ingestion.simulator.server import build_app, running
    from klinehouse.demo import show, show_next
    from klinehouse.live_demo import live_minute

    home = os.environ.get(f"{PREFIX}HOME", ".klinehouse-demo")
    with running(build_app(seed)) as address:
        settings = load_settings(home=home, archive_url=address, start=day(start, "--start"))
        run_backfill(settings, end, quiet=False)
    banner(simulation_of(settings))
    show(settings)
    if live:
        live_minute(settings, seed, live)
    show_next(settings)


@app.command(epilog=examples("klinehouse up", "klinehouse up --simulate --speed 60", "klinehouse up --no-live"))
def up(
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Start a simulated exchange, which goes on where this home's bars end.")
    ] = False,
    speed: Annotated[float, typer.Option(min=0, help="How fast the simulated exchange's clock goes.")] = 60.0,
    live: Annotated[bool, typer.Option(help="Collect live bars, and make them visible.")] = True,
) -> None:
    """Start the collector and Dagster (its UI, and its daemon, which keeps the streaming run) on this home.

    Ctrl-C stops all of them.
    """
    from klinehouse.supervisor import programs, supervise

    settings = load_settings()
    options = None
    if simulate:
        port = free_port()
        settings = load_settings(archive_url=f"http://127.0.0.1:{port}")
        options = ["--port", str(port), "--speed", str(speed), "--now", f"{where_bars_end(settings):%Y-%m-%dT%H:%M}"]
    banner(simulation_of(settings))
    err.print(f"Dagster UI on http://{settings.ui_host}:{settings.ui_port}", highlight=False)
    if live:
        address = f"http://{settings.collector_host}:{settings.collector_port}"
        err.print(f"Collector on {address}/health, /metrics and /latest", highlight=False)
    raise typer.Exit(supervise(programs(settings, live=live, exchange_options=options)))
