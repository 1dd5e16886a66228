"""GET as the exchange's hosts want it: retried when a failure passes, waiting when they ask for it, bounded in size.

urllib3, because a request costs it 0.8 ms of CPU and httpx2 1.9 ms, and landing six years of three symbols makes 432.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import stamina
import urllib3

from ingestion.errors import ExchangeRefused
from ingestion.settings import Settings

# A server that is not the real exchange says so in this header of every answer; its value names what it plays.
SIMULATED_HEADER = "x-klinehouse-simulated"

_LOG = logging.getLogger(__name__)

_RETRY_AFTER_DEFAULT = 60.0
_LIMITED = (418, 429)
_REFUSALS = {
    401: "Check {setting}.",
    403: "The host blocks this address or the file is closed; wait some minutes, or set {setting} to another host.",
    451: "The host does not serve this country; set {setting} to one that does (https://data-api.binance.vision for "
    "prices, a mirror for the archive).",
}


class RateLimited(ExchangeRefused):
    """The exchange wants more patience than KLINEHOUSE_MAX_WAIT allows."""

    kind = "rate_limited"


class TooLarge(Exception):
    """An answer that is longer than KLINEHOUSE_MAX_FILE_MB."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and whole body of one answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def simulation(self) -> str | None:
        return self.headers.get(SIMULATED_HEADER)


@dataclass
class Traffic:
    """What a run asked of the exchange, counted over all its threads."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    rate_limit_waits: int = 0
    waited_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in vars(self).items() if not name.startswith("_")}


class _Passing(Exception):
    """An answer worth another try: 5xx, 408, or an error code that passes."""


# A body that does not decode, or stops early, was mangled on the way.
_RETRIED = (urllib3.exceptions.HTTPError, _Passing)


class Http:
    """GET and HEAD on one host. Safe to share between threads; `sleep` and `clock` are for tests."""

    def __init__(
        self,
        settings: Settings,
        setting: str,
        traffic: Traffic,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._setting, self._traffic = setting, traffic
        self._attempts = settings.http_attempts
        self._max_bytes = settings.max_file_mb << 20
        self._max_wait = settings.max_wait
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._waited = 0.0
        self._out_of_patience: RateLimited | None = None
        self._limited = False
        self._first_after_wait = threading.Lock()
        self._pool = urllib3.PoolManager(
            maxsize=settings.download_workers,
            timeout=urllib3.Timeout(settings.http_timeout),
            headers={"user-agent": "klinehouse", "accept-encoding": "gzip"},
            retries=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def get(
        self, url: str, fields: Mapping[str, str] | None = None, *, passes: Callable[[Answer], bool] = lambda _: False
    ) -> Answer:
        """Answer with status 200, 400 or 404; everything else is waited out, tried again, or raised.

        `passes` tells answers that are worth another try. Raises ExchangeRefused when the host refuses or stays out of
        reach, RateLimited when it asks for more patience than there is (and from then on without asking it), TooLarge
        for a body without end.
        """
        return self._persist("GET", url, fields, passes)

    def head(self, url: str) -> Answer:
        """The headers of a GET, with an empty body; statuses that only mean "no HEAD here" are returned too."""
        return self._persist("HEAD", url, None, lambda _: False)

    def _persist(
        self, method: str, url: str, fields: Mapping[str, str] | None, passes: Callable[[Answer], bool]
    ) -> Answer:
        try:
            for attempt in stamina.retry_context(
                on=_RETRIED, attempts=self._attempts, timeout=None, wait_initial=0.2, wait_max=20
            ):
                with attempt:
                    if attempt.num > 1:
                        self._traffic.add(retries=1)
                    answer = self._patiently(method, url, fields)
                    if not _no_head(method, answer) and (_is_passing(answer) or passes(answer)):
                        raise _Passing(f"HTTP {answer.status} {_excerpt(answer)}".strip())
                    return answer
        except _RETRIED as error:
            raise ExchangeRefused(
                f"{url} failed {self._attempts} times: {error}.",
                f"Check the network and {self._setting}, then run again; what has landed is kept.",
            ) from error
        raise AssertionError("unreachable: a retry context returns or raises")

    def _patiently(self, method: str, url: str, fields: Mapping[str, str] | None) -> Answer:
        """One answer, after however many waits the host asks for. Nobody asks again while one waits: it would be
        counted against us, and a 429 that is ignored becomes a ban. After the wait one thread asks first."""
        while True:
            self._wait_until_resumed()
            with self._first_after_wait if self._limited else nullcontext():
                if self._left_to_wait() > 0:  # the thread before this one was told to wait again
                    continue
                answer = self._once(method, url, fields)
                if answer.status not in _LIMITED:
                    self._limited = False
                    return self._accepted(method, url, answer)
                self._pause(url, answer)

    def _accepted(self, method: str, url: str, answer: Answer) -> Answer:
        if answer.status in (200, 400, 404) or _is_passing(answer) or _no_head(method, answer):
            return answer
        remedy = _REFUSALS.get(answer.status, "Check {setting}.").format(setting=self._setting)
        raise ExchangeRefused(f"{url} was refused with HTTP {answer.status} {_excerpt(answer)}".strip() + ".", remedy)

    def _once(self, method: str, url: str, fields: Mapping[str, str] | None) -> Answer:
        self._traffic.add(requests=1)
        response = self._pool.request(
            method, url, fields=dict(fields) if fields else None, preload_content=False, redirect=False
        )
        try:
            body = self._read(url, response)
            response.release_conn()
        except BaseException:
            response.close()
            raise
        self._traffic.add(bytes=len(body))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, body)

    def _read(self, url: str, response: urllib3.BaseHTTPResponse) -> bytes:
        body = io.BytesIO()
        for chunk in response.stream(1 << 16):
            body.write(chunk)
            if body.tell() > self._max_bytes:
                raise TooLarge(f"{url} is larger than {self._max_bytes >> 20} MB")
        return body.getvalue()

    def _wait_until_resumed(self) -> None:
        while (wait := self._left_to_wait()) > 0:
            self._sleep(wait)

    def _left_to_wait(self) -> float:
        """Seconds until the host may be asked; raises RateLimited when it wants more patience than there is."""
        with self._lock:
            if self._out_of_patience is not None:
                raise self._out_of_patience
            return self._resume_at - self._clock()

    def _pause(self, url: str, answer: Answer) -> None:
        """Make all threads wait as long as the host says, or give up when that is longer than allowed."""
        asked = _retry_after(answer)
        with self._lock:
            self._limited = True
            begin = max(self._clock(), self._resume_at)
            more = self._clock() + asked - begin
            if more > 0:
                if self._waited + more > self._max_wait:
                    self._out_of_patience = self._too_long(url, answer, asked)
                    raise self._out_of_patience
                self._waited += more
                self._resume_at = begin + more
                # Threads that were answered together wait together: that is one wait, made longer by milliseconds.
                self._traffic.add(rate_limit_waits=int(more > asked / 2), waited_s=more)
                _LOG.warning("rate limited", extra={"url": url, "status": answer.status, "wait_s": round(more, 3)})

    def _too_long(self, url: str, answer: Answer, asked: float) -> RateLimited:
        host = "/".join(url.split("/", 3)[:3])
        what = "has banned this address" if answer.status == 418 else "is limiting this address"
        waited = f" after {self._waited:.0f} s of waiting" if self._waited else ""
        return RateLimited(
            f"{host} {what} for {asked:.0f} s{waited}, which is more than --max-wait {self._max_wait:.0f} allows.",
            "Run again later, or with a longer --max-wait; what has landed is kept.",
        )


def _is_passing(answer: Answer) -> bool:
    return answer.status >= 500 or answer.status == 408


def _no_head(method: str, answer: Answer) -> bool:
    """Whether an answer only says that the host has no HEAD here."""
    return method == "HEAD" and answer.status in (405, 501)


def _retry_after(answer: Answer) -> float:
    """Seconds; the header is a whole number of them at this exchange."""
    asked = answer.headers.get("retry-after", "").strip()
    return max(float(asked), 1.0) if asked.isascii() and asked.isdigit() else _RETRY_AFTER_DEFAULT


def _excerpt(answer: Answer) -> str:
    """The start of a body on one line, for messages."""
    return " ".join(answer.body[:300].decode("utf-8", "replace").split())[:160]
