"""What a client asks of a connection of the stream, and the answers: subscriptions and the property `combined`."""

import json
import re
from collections.abc import Callable
from typing import Any

from ingestion.simulator.frames import compact

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_TEXT_ID = re.compile(r"[A-Za-z0-9]{1,36}")


class _Wrong(Exception):
    """An error of the exchange: its code and message; the answer repeats the id when `with_id`."""

    def __init__(self, code: int, message: str, *, with_id: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.with_id = code, message, with_id


class TooManyStreams(Exception):
    """More streams than a connection may have."""


class Subscriptions:
    """The streams of one connection, in the order of their subscription, and how they are framed.

    `changed` hears the streams that are new and those that are left.
    """

    def __init__(self, *, limit: int, changed: Callable[[list[str], list[str]], None]) -> None:
        self.streams: dict[str, None] = {}
        self.combined = False
        self._limit, self._changed = limit, changed

    def add(self, streams: list[str]) -> None:
        """Raises TooManyStreams."""
        new = [stream for stream in dict.fromkeys(streams) if stream not in self.streams]
        if len(self.streams) + len(new) > self._limit:
            raise TooManyStreams
        self.streams.update(dict.fromkeys(new))
        self._changed(new, [])

    def remove(self, streams: list[str]) -> None:
        gone = [stream for stream in dict.fromkeys(streams) if stream in self.streams]
        for stream in gone:
            del self.streams[stream]
        self._changed([], gone)

    def answer(self, text: str) -> str:
        """Do what a message asks; the answer to it. Raises TooManyStreams."""
        number: Any = None
        try:
            request = _parsed(text)
            number = _id(request)
            return compact({"result": self._result(request, text), "id": number})
        except _Wrong as error:
            return compact({"code": error.code, "msg": error.message} | ({"id": number} if error.with_id else {}))

    def _result(self, request: dict[str, Any], text: str) -> Any:
        method = request["method"]
        if method not in _METHODS:
            expected = ", ".join(f"`{name}`" for name in _METHODS)
            raise _Wrong(
                2,
                f"Invalid request: unknown variant `{method}`, expected one of {expected} at line 1 column "
                f"{text.find(compact(method)) + len(compact(method))}",
            )
        params = request.get("params", [])
        if not isinstance(params, list):
            raise _Wrong(2, "Invalid request: invalid type: expected a sequence of parameters")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self._subscribe(params, remove=method == "UNSUBSCRIBE")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        return self._property(params, values=1 if method == "SET_PROPERTY" else 0)

    def _subscribe(self, streams: list[Any], *, remove: bool) -> None:
        if not all(isinstance(stream, str) for stream in streams):
            raise _Wrong(2, "Invalid request: invalid type: expected a string")
        (self.remove if remove else self.add)(streams)

    def _property(self, params: list[Any], values: int) -> bool | None:
        if len(params) > 1 + values:
            raise _Wrong(2, "Invalid request: too many parameters")
        if len(params) < 1 + values or not isinstance(params[0], str):
            raise _Wrong(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Wrong(0, "Unknown property", with_id=True)
        if not values:
            return self.combined
        if not isinstance(params[1], bool):
            raise _Wrong(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return None


def _parsed(text: str) -> dict[str, Any]:
    """The request, which has a method."""
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        raise _Wrong(3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise _Wrong(3, "Invalid JSON: recursion limit exceeded at line 1 column 128") from error
    if not isinstance(request, dict) or "method" not in request:
        raise _Wrong(2, f"Invalid request: missing field `method` at line 1 column {len(text)}")
    return request


def _id(request: dict[str, Any]) -> Any:
    """A 64-bit signed integer, up to 36 letters and digits, or null."""
    number = request.get("id")
    fits = (
        number is None
        or (type(number) is int and -(2**63) <= number < 2**63)
        or (isinstance(number, str) and _TEXT_ID.fullmatch(number))
    )
    if not fits:
        raise _Wrong(2, "Invalid request: request ID must be an integer, an alphanumeric string or null")
    return number
