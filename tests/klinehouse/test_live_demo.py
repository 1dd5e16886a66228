"""The last part of the demo: live bars in this process, from an exchange many times faster than time."""

import re
from pathlib import Path

import pytest
from support.homes import home

from klinehouse.live_demo import live_minute
from warehouse.serving import run_query
from warehouse.status import status


def test_live_bars_come_are_told_and_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A bar of 1m closes every second; the warehouse is made with the first.
    settings = home(tmp_path, symbols="BTCUSDT", interval="1m")
    live_minute(settings, 1, 8.0)
    said = capsys.readouterr().out
    batches = re.findall(r"^  [\d-]+ [\d:]+  (\d+) bars with indicators, readable after [\d.]+ s$", said, re.MULTILINE)
    assert batches, said
    assert f"{len(batches)} batches." in said
    told = sum(map(int, batches))
    count = "select count(*) from market_data_unified where \"interval\" = '1m'"
    assert run_query(settings, count).rows == [(told,)]
    assert [live.bars for live in status(settings).live] == [told]


def test_a_demo_too_short_for_a_bar_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live_minute(home(tmp_path, symbols="BTCUSDT"), 1, 0.1)
    assert "No bar closed in that time." in capsys.readouterr().err
