"""The exchange's hosts as one: its archive, its REST API, and what a run has asked of them."""

import threading
from types import TracebackType
from typing import Self

from ingestion.binance.archive import Archive
from ingestion.binance.http import Http, Traffic
from ingestion.binance.rest import MARKET_DATA_HOST, Rest, WeightBudget
from ingestion.settings import Settings


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

    def _rest_base(self) -> str:
        if self._settings.rest_url:
            return self._settings.rest_url
        simulated = self.archive.simulation or self.archive.check()
        return self._settings.archive_url if simulated else MARKET_DATA_HOST
