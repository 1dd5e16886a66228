"""Commands about live data: collect, stream."""

import dataclasses
import signal
import sys
from datetime import timedelta
from typing import Annotated

import typer

from ingestion.settings import load_settings
from klinehouse import logs
from klinehouse.app import Interval, Json, Symbols, app, examples, show_banner
from klinehouse.output import err, out, print_json


@app.command(
    epilog=examples("klinehouse collect", "klinehouse collect --symbols BTCUSDT --interval 1m --log-format text")
)
def collect(
    symbols: Symbols = None,
    interval: Interval = None,
    log_format: str = typer.Option(
        "json", help="What is written to standard error: json or text.", callback=logs.configure
    ),
    json: Json = False,
) -> None:
    """Collect closed bars from the exchange's streams onto the bus, until SIGTERM or Ctrl-C.

    It tells /health, /metrics and /latest on KLINEHOUSE_COLLECTOR_HOST and KLINEHOUSE_COLLECTOR_PORT.
    """
    from ingestion.bus.open import open_bus
    from ingestion.collector.service import Service

    settings = load_settings(symbols=symbols, interval=interval)

    def ready(address: str) -> None:
        if json:
            print_json({"url": address})
            sys.stdout.flush()
        else:
            err.print(f"Collecting; {address}/health tells how it goes. Stop it with Ctrl-C.", soft_wrap=True)

    bus = open_bus(settings)
    service = Service(settings, bus)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run(ready)
    finally:
        # A bus that hangs would hold back its closing too, and the process with it.
        if not service.is_publishing:
            bus.close()


@app.command(epilog=examples("klinehouse stream", "klinehouse stream --seconds 60 --json"))
def stream(
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long. Default: never.")] = None,
    json: Json = False,
) -> None:
    """Make collected bars visible, batch by batch, without Dagster, until Ctrl-C or until another one takes over.

    One line for each batch: its bars, and how long after the collector had them they could be read.
    """
    from ingestion.bus.open import open_bus
    from warehouse.streaming import BatchReport, older_than, until_asked
    from warehouse.streaming import stream as run
    from warehouse.warm_up import warm_up

    settings = load_settings()
    is_over = older_than(timedelta(seconds=seconds)) if seconds is not None else lambda: None

    def show(report: BatchReport) -> None:
        if json:
            print_json(dataclasses.asdict(report))
            sys.stdout.flush()
        else:
            out.print(str(report), highlight=False)

    show_banner(settings)
    with until_asked() as asked:
        warm_up(settings)
        with open_bus(settings) as bus:
            reason = run(settings, bus, show, lambda: asked() or is_over())
    err.print(f"The streaming run ends: {reason}.")
