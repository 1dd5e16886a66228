"""Commands about live data: collect."""

import signal
import sys

import typer

from ingestion.settings import load_settings
from klinehouse import logs
from klinehouse.app import Interval, Json, Symbols, app, examples
from klinehouse.output import err, print_json


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
