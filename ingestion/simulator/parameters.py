"""The query of a REST request, checked as the exchange does: its error codes, texts and their order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request

from ingestion.klines import INTERVAL_MICROS

_SYMBOL = re.compile(r"(?:(?![a-z])[\w\-.]){1,50}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::([0-5]\d))?")
_SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
_NUMBER_RANGE = "^[0-9]{1,20}$"
_LARGEST = 2**63 - 1
# The truth is the minute: seconds are not listed.
INTERVALS = tuple(name for name in INTERVAL_MICROS if name != "1s")


class Refused(Exception):
    """An error of the exchange: its code and message, answered with HTTP 400."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class KlinesQuery:
    """A checked query: times in microseconds; None where nothing was asked."""

    symbol: str
    interval: str
    start: int | None
    end: int | None
    limit: int

    @property
    def newest(self) -> bool:
        """Whether the limit keeps the newest bars; with a start it keeps the oldest."""
        return self.start is None


def read_query(request: Request, mandatory: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The parameters by name; Refused for repeated, empty, missing and unknown ones."""
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Refused(-1101, "Duplicate values for a parameter detected.")
    for name in mandatory:
        if name not in values:
            raise Refused(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    for name, value in values.items():
        if name in known and not value:
            raise Refused(-1105, f"Parameter '{name}' was empty.")
    read = [name for name in values if name in known]
    if len(read) < len(values):
        raise Refused(
            -1104,
            f"Not all sent parameters were read; read '{len(read)}' parameter(s) but was sent '{len(values)}'.",
        )
    return values


def klines_query(request: Request) -> KlinesQuery:
    """Raises Refused; a limit beyond 1000 is 1000."""
    names = ("symbol", "interval", "startTime", "endTime", "timeZone", "limit")
    values = read_query(request, names[:2], names)
    symbol = checked_symbol(values["symbol"])
    start, end = (_instant(name, values[name]) if name in values else None for name in ("startTime", "endTime"))
    limit = _number("limit", values["limit"]) if "limit" in values else 500
    if values["interval"] not in INTERVALS:
        raise Refused(-1120, "Invalid interval.")
    if limit == 0:
        raise invalid("limit")
    _check_zone(values.get("timeZone", "0"), values["interval"])
    return KlinesQuery(symbol, values["interval"], start, end, min(limit, 1000))


def in_microseconds(request: Request) -> bool:
    """Whether the answer's times are asked for in microseconds."""
    unit = request.headers.get("x-mbx-time-unit", "MILLISECOND")
    if unit not in ("MICROSECOND", "microsecond", "MILLISECOND", "millisecond"):
        raise invalid("X-MBX-TIME-UNIT")
    return unit.upper() == "MICROSECOND"


def checked_symbol(text: str) -> str:
    if not _SYMBOL.fullmatch(text):
        raise _illegal("symbol", _SYMBOL_RANGE)
    return text


def unknown_symbol() -> Refused:
    return Refused(-1121, "Invalid symbol.")


def invalid(name: str) -> Refused:
    return Refused(-1130, f"Data sent for parameter '{name}' is not valid.")


def _illegal(name: str, legal: str) -> Refused:
    return Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _illegal(name, _NUMBER_RANGE)
    if int(text) > _LARGEST:
        raise invalid(name)
    return int(text)


def _instant(name: str, text: str) -> int:
    """Milliseconds, or microseconds from 16 digits on, to microseconds."""
    value = _number(name, text)
    return value if value >= 10**15 else value * 1000


def _check_zone(text: str, interval: str) -> None:
    """Served are zones in which the bars are those of UTC; the simulated exchange has no others."""
    match = _ZONE.fullmatch(text)
    if match is None:
        raise invalid("timeZone")
    minutes = (int(match[2]) * 60 + int(match[3] or 0)) * (-1 if match[1] == "-" else 1)
    length = INTERVAL_MICROS[interval]
    shifted = minutes != 0 and (length is None or length > 43_200_000_000 or minutes * 60_000_000 % length)
    if not -720 <= minutes <= 840 or shifted:
        raise invalid("timeZone")
