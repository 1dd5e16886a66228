"""The collector as a service: its parts put together, started, watched and stopped."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import Queue
from typing import Any

from filelock import FileLock, Timeout

from ingestion.binance.exchange import Exchange
from ingestion.binance.stream import MAX_STREAMS
from ingestion.bus.port import Bus
from ingestion.collector.catch_up import Fetcher
from ingestion.collector.clock import ExchangeClock
from ingestion.collector.connections import Connection
from ingestion.collector.core import Core
from ingestion.collector.health import Health
from ingestion.collector.http import build_app, serving
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.shards import ConnectLimit, Shard
from ingestion.collector.spool import Spool
from ingestion.collector.starts import first_opens
from ingestion.errors import ConfigurationError, ExchangeRefused, KlinehouseError
from ingestion.grid import micros
from ingestion.klines import Series
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings
from ingestion.store import make_folder

_LOG = logging.getLogger(__name__)

MEGABYTE = 1 << 20
_MOST_EVENTS = 10_000
# To end what runs: together less than the 10 s that a supervisor gives.
_CORE_END, _PUBLISHER_END, _LINES_END = 2.0, 3.0, 0.5
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_LOOK_UP = 0.2
_PUBLISHER = "publisher"


class CollectorFailed(KlinehouseError):
    """A part of the collector ended by an error that nobody foresaw; a supervisor starts it again."""

    kind = "collector_failed"


class Service:
    """Collects the series of the settings onto a bus. `stop` may be called from any thread, or a signal handler."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings, self._bus = settings, bus
        self._metrics = Metrics()
        self._is_asked_to_stop = False
        self._stopping = threading.Event()
        self._failure: KlinehouseError | None = None
        self._health: Health | None = None
        self._obstacle = "the exchange has not answered yet"
        self._threads: list[tuple[Callable[[], None], threading.Thread, float]] = []
        self._shards: list[Shard] = []

    def stop(self) -> None:
        # No event: its lock may be held by the very thread that a signal has interrupted.
        self._is_asked_to_stop = True

    @property
    def is_publishing(self) -> bool:
        """Whether the bus is in use: after `run`, that it has not answered for seconds."""
        return any(thread.name == _PUBLISHER and thread.is_alive() for _, thread, _ in self._threads)

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Collect until `stop`; `on_ready` hears the address of /health.

        Raises ConfigurationError where this home cannot be collected for, CollectorFailed for what nobody foresaw.
        """
        settings = self._settings
        make_folder(settings.spool_path.parent)
        try:
            with FileLock(settings.spool_path.with_suffix(".lock"), timeout=0):
                app = build_app(lambda: self._health, lambda: self._obstacle, self._metrics.registry)
                with serving(app, settings.collector_host, settings.collector_port) as address:
                    on_ready(address)
                    self._collect()
        except Timeout as error:
            raise ConfigurationError(
                f"Another collector runs on {settings.home}.", "Stop it, or set KLINEHOUSE_HOME to another folder."
            ) from error
        if self._failure is not None:
            raise self._failure

    def _collect(self) -> None:
        spool = Spool(self._settings.spool_path, self._settings.spool_mb * MEGABYTE)
        publisher = Publisher(spool, self._bus, self._metrics)
        self._threads = [(publisher.stop, self._thread(_PUBLISHER, publisher.run), _PUBLISHER_END)]
        try:
            self._threads[0][1].start()
            # Where the exchange does not answer this takes long, and a signal must not wait for it.
            self._thread("start", lambda: self._start(spool, publisher)).start()
            # A signal that another thread was given wakes nobody, so this looks up from time to time.
            while not (self._is_asked_to_stop or self._stopping.wait(_LOOK_UP)):
                pass
            self._stopping.set()
            self._end()
        finally:
            spool.close()

    def _start(self, spool: Spool, publisher: Publisher) -> None:
        """Find the exchange, and start what collects from it."""
        settings = self._settings.model_copy(update={"max_wait": math.inf, "http_attempts": 3})
        exchange = Exchange(settings)
        found = self._endpoints(exchange)
        if found is None:
            return
        stream_url, simulation, now = found
        clock = ExchangeClock(now)
        events: Queue[Any] = Queue(_MOST_EVENTS)
        fetcher = Fetcher(lambda: exchange.rest, events, settings.catch_up_bars)
        self._shards = self._make_shards(events, clock, stream_url, simulation)
        spool.append((), first_opens(RawZone(settings.raw_root), settings.series, spool))
        core = Core(settings.series, clock, events, self._shards, fetcher, spool, publisher, self._metrics)
        self._health = Health(core, self._shards, spool, publisher, self._metrics, settings.stale_after)
        self._tell(self._health)
        if self._stopping.is_set():
            return
        fetcher.start()
        thread = self._thread("core", core.run)
        thread.start()
        # Ends before the publisher: what it keeps at its end is published too.
        self._threads.insert(0, (core.stop, thread, _CORE_END))
        _LOG.info("collecting", extra={"series": len(settings.series), "stream": stream_url, "simulation": simulation})

    def _endpoints(self, exchange: Exchange) -> tuple[str, str | None, int] | None:
        """Address of the streams, what they play, and the exchange's time in microseconds, as soon as it answers.

        None when stopped before that. The home is claimed for what the settings lead to: raises ConfigurationError
        where it holds data of something else.
        """
        zone = RawZone(self._settings.raw_root)
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            try:
                now = micros(exchange.rest.server_time())
                stream_url = exchange.stream_url
            except ExchangeRefused as error:
                self._obstacle = str(error)
                self._metrics.errors.labels("exchange_refused").inc()
                _LOG.warning("the exchange cannot be reached yet", extra={"reason": str(error)})
                self._stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                simulation = exchange.rest.simulation
                # The streams say themselves what they play; a connection to something else is not kept.
                zone.claim(Environment.of(simulation))
                return stream_url, simulation, now
        return None

    def _make_shards(
        self, events: "Queue[Any]", clock: ExchangeClock, stream_url: str, simulation: str | None
    ) -> list[Shard]:
        series, settings = self._settings.series, self._settings
        limit = ConnectLimit()

        def dial(part: Sequence[Series]) -> Connection:
            return Connection(
                stream_url, part, events, self._metrics, stale_after=settings.stale_after, simulation=simulation
            )

        parts = [series[first : first + MAX_STREAMS] for first in range(0, len(series), MAX_STREAMS)]
        return [
            Shard(part, dial, limit, self._metrics, max_age=settings.connection_life, exchange_clock=clock.seconds)
            for part in parts
        ]

    def _tell(self, health: Health) -> None:
        gauge = self._metrics.gauge
        gauge("last_message_age_seconds", "Since a bar was heard, open or closed.", lambda: health.last_message_age)
        gauge("spool_messages", "Messages that the bus does not have yet.", lambda: health.spool.messages)
        gauge("spool_bytes", "Their size.", lambda: health.spool.bytes)
        gauge("connected", "1 when every connection is streaming.", lambda: health.connected)
        gauge("series_behind", "Series of which bars are being fetched.", lambda: len(health.core.behind))
        gauge("healthy", "1 when /health has no problem.", lambda: not health.problems())

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def watched() -> None:
            try:
                run()
            except KlinehouseError as error:
                self._failure = error
            except Exception as error:  # noqa: BLE001 - whatever it is, the service does not go on without the part
                _LOG.exception("a part of the collector failed", extra={"part": name})
                self._failure = CollectorFailed(
                    f"The collector's {name} failed: {error!r}.", "The log has the traceback; start it again."
                )
            if self._failure:
                self._stopping.set()

        return threading.Thread(target=watched, name=name, daemon=True)

    def _end(self) -> None:
        """Keep what has been heard, publish what the bus takes, close the connections."""
        started = time.monotonic()
        for stop, thread, patience in self._threads:
            stop()
            thread.join(patience)
        deadline = time.monotonic() + _LINES_END
        while time.monotonic() < deadline and not all(shard.is_closed for shard in self._shards):
            time.sleep(0.02)
        _LOG.info("stopped", extra={"seconds": round(time.monotonic() - started, 3)})
