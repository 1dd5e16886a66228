"""The heat strip: every month of every series in one state, from the landed files alone."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from support.homes import home, random_walk
from support.streamed import streamed

from ingestion.history.coverage import State, coverage
from ingestion.history.run import land_history
from ingestion.klines import Month, Series, months_between
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.simulator.faults import Faults
from ingestion.simulator.outages import Outage
from ingestion.simulator.server import build_app, running
from ingestion.stream_zone import StreamZone

NOW = datetime(2024, 11, 5, 12, 30, tzinfo=UTC)
MONTHS = months_between(date(2024, 6, 1), date(2024, 12, 1))
HALT = Outage(datetime(2024, 7, 10, 2, 30, tzinfo=UTC), datetime(2024, 7, 10, 5, tzinfo=UTC))
BAD = "BTCUSDT-1h-2024-08.zip"


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    app = build_app(seed=1, now=NOW, outages=[HALT], faults=Faults(stale_checksum=(BAD,)))
    with running(app) as address:
        settings = home(
            tmp_path_factory.mktemp("covered"), archive_url=address, symbols="BTCUSDT,MATICUSDT,POLUSDT", interval="1h"
        )
        land_history(settings, settings.series, MONTHS)
    return settings


def states(settings: Settings, symbol: str) -> list[State]:
    (line,) = coverage(RawZone(settings.raw_root), [Series(symbol, "1h")], MONTHS[0], NOW)
    assert [cell.month for cell in line.cells] == MONTHS
    return [cell.state for cell in line.cells]


def test_full_months_halts_and_refused_files_are_told_apart(landed: Settings) -> None:
    full = State.FULL
    assert states(landed, "BTCUSDT") == [full, State.OUTAGE, State.QUARANTINED, full, full, full]


def test_months_before_the_first_bar_and_after_the_last_are_not_listed(landed: Settings) -> None:
    none = State.NOT_LISTED
    assert states(landed, "POLUSDT")[:3] == [none] * 3
    assert State.NOT_LISTED not in states(landed, "POLUSDT")[3:]
    # It stopped on 2024-09-10: the rest of that month is a hole that archive and REST both have.
    assert states(landed, "MATICUSDT") == [State.FULL, State.OUTAGE, State.FULL, State.OUTAGE, none, none]


def test_a_month_that_is_gone_is_missing_and_healed(landed: Settings) -> None:
    zone = RawZone(landed.raw_root)
    (file,) = zone.history_files("1h", ["BTCUSDT"], [Month(2024, 6)])
    content = Path(file.path).read_bytes()
    Path(file.path).unlink()
    (line,) = coverage(zone, [Series("BTCUSDT", "1h")], MONTHS[0], NOW)
    Path(file.path).write_bytes(content)
    assert line.cells[0].state is State.MISSING
    assert line.missing == [Month(2024, 6)]


def test_a_month_that_only_the_stream_has_says_so_and_is_healed(tmp_path: Path) -> None:
    settings = home(tmp_path)
    series = Series("BTCUSDT", "1h")
    StreamZone(settings.raw_root).write(streamed(random_walk(series, datetime(2024, 10, 31, tzinfo=UTC), 30)))
    (line,) = coverage(RawZone(settings.raw_root), [series], Month(2024, 9), NOW)
    assert [(cell.state, cell.streamed_until) for cell in line.cells] == [
        (State.MISSING, None),
        (State.STREAM, datetime(2024, 11, 1, tzinfo=UTC)),
        (State.STREAM, datetime(2024, 11, 1, 6, tzinfo=UTC)),
    ]
    assert line.missing == months_between(date(2024, 9, 1), date(2024, 12, 1))
