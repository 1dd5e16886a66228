"""The exchange's hosts as one: its archive, its REST API, and what a run has asked of them."""

import json
import threading
from types import TracebackType
from typing import Self

from ingestion.binance.archive import Archive
from ingestion.binance.http import Http, Traffic
from ingestion.binance.rest import MARKET_DATA_HOST, Rest, WeightBudget
from ingestion.errors import ExchangeRefused
from ingestion.settings import Settings

STREAM_HOST = "wss://data-stream.binance.vision"


class Exchange:
    """Opens the hosts of the settings. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.traffic = Traffic()
        self._archive_http = Http(settings, "KLINEHOUSE_ARCHIVE_URL", self.traffic)
        self._rest_http = Http(settings, "KLINEHOUSE_REST_URL", self.traffic)
        self.archive = Archive(settings, self._archive_http)
        self._budget = WeightBudget(settings.rest_weight)
        self._lock = threading.Lock()
        self._rest: Rest | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._archive_http.close()
        self._rest_http.close()

    @property
    def rest(self) -> Rest:
        """The REST API. A simulated exchange serves it on the archive's own address, unless another one is set."""
        with self._lock:
            if self._rest is None:
                self._rest = Rest(self._rest_base(), self._rest_http, self._budget)
            return self._rest

    @property
    def stream_url(self) -> str:
        """The host of the kline streams. A simulated exchange tells where its own is, unless another one is set."""
        if self._settings.stream_url:
            return self._settings.stream_url
        return self._simulated_stream() if self.simulation else STREAM_HOST

    @property
    def simulation(self) -> str | None:
        """What the archive's host plays, when it is a simulated one."""
        return self.archive.simulation or self.archive.check()

    def _rest_base(self) -> str:
        if self._settings.rest_url:
            return self._settings.rest_url
        return self._settings.archive_url if self.simulation else MARKET_DATA_HOST

    def _simulated_stream(self) -> str:
        answer = self._archive_http.get(f"{self._settings.archive_url}/simulator/stream")
        try:
            return str(json.loads(answer.body)["url"])
        except (ValueError, KeyError, TypeError) as error:
            raise ExchangeRefused(
                f"The simulated exchange at {self._settings.archive_url} has no streams.", "Set KLINEHOUSE_STREAM_URL."
            ) from error
