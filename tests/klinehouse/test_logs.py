"""What programs say while they work."""

import json
import logging
from collections.abc import Iterator

import pytest

from klinehouse.logs import configure


@pytest.fixture
def stamina_logger() -> Iterator[logging.Logger]:
    """The logger of retries, as it was before when the test is over; so is that of ingestion."""
    loggers = [logging.getLogger(name) for name in ("ingestion", "stamina")]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    yield loggers[1]
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_a_retry_says_why_which_and_when(stamina_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    extra = {"stamina.callable": "<context block>", "stamina.args": (), "stamina.kwargs": {}}
    extra |= {"stamina.retry_num": 2, "stamina.caused_by": "refused", "stamina.wait_for": 1.5}
    stamina_logger.warning("stamina.retry_scheduled", extra=extra)
    said = json.loads(capsys.readouterr().err)
    del said["timestamp"]
    assert said == {"level": "warning", "event": "retrying", "cause": "refused", "attempt": 2, "in_seconds": 1.5}
