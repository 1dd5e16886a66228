"""Logs on request: what landing does, a JSON object or a line of text each, on standard error."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import typer

_FORMATS = ("json", "text")


def _retries_in_brief(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What stamina says of a retry: why, which one, and in how many seconds."""
    if event.get("event") != "stamina.retry_scheduled":
        return event
    names = {"stamina.caused_by": "cause", "stamina.retry_num": "attempt", "stamina.wait_for": "in_seconds"}
    brief = {name: value for name, value in event.items() if not name.startswith("stamina.")}
    return brief | {"event": "retrying"} | {short: event[name] for name, short in names.items() if name in event}


def configure(log_format: str | None) -> str | None:
    """Make the loggers of ingestion write in this format; without one they are silent, and progress bars speak."""
    if log_format is None:
        return None
    if log_format not in _FORMATS:
        raise typer.BadParameter(f"choose one of {', '.join(_FORMATS)}")
    import structlog

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _retries_in_brief,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = log_format == "json"
    renderer = (
        structlog.processors.JSONRenderer(default=str) if is_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    for name in ("ingestion", "stamina"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    return log_format
