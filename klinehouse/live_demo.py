"""The last part of `klinehouse demo`: a minute of live bars, many times faster than time."""

import statistics
import threading
from datetime import timedelta

from ingestion.bus.open import open_bus
from ingestion.collector.service import Service
from ingestion.settings import Settings
from ingestion.simulator.clock import Clock
from ingestion.simulator.server import build_app, running
from klinehouse.app import where_bars_end
from klinehouse.output import err, out
from warehouse.streaming import BatchReport, older_than, stream
from warehouse.warm_up import warm_up

# A bar of 5m closes every 5 s.
SPEED = 60.0


def live_minute(settings: Settings, seed: int, seconds: float) -> None:
    """Go on where this home's bars end: exchange, collector and streaming run in this process, for so many seconds."""
    clock = Clock(where_bars_end(settings), SPEED)
    lags: list[float] = []

    def show(report: BatchReport) -> None:
        if report.system_lag is not None:
            lags.append(report.system_lag)
            out.print(
                f"  {report.watermark:%Y-%m-%d %H:%M}  {report.rows} bars with indicators, readable after "
                f"{report.system_lag:.2f} s",
                highlight=False,
            )

    out.print(f"{seconds:.0f} seconds of live bars, {SPEED:.0f} times faster than time:", style="bold")
    warm_up(settings)
    with running(build_app(seed, now=clock)) as address:
        live = settings.model_copy(update={"archive_url": address, "collector_port": 0})
        with open_bus(live) as bus, open_bus(live) as own:
            service = Service(live, own)
            collector = threading.Thread(target=service.run, args=(lambda _: None,), name="collector")
            collector.start()
            try:
                stream(live, bus, show, older_than(timedelta(seconds=seconds)))
            finally:
                service.stop()
                collector.join()
    if lags:
        out.print(
            f"{len(lags)} batches. Bars could be read {statistics.median(lags):.2f} s after the collector had them "
            f"(median; at most {max(lags):.2f} s).",
            highlight=False,
        )
    else:
        err.print("No bar closed in that time.")
