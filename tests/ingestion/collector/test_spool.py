import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.collector.spool import Spool, SpoolBroken
from ingestion.errors import ConfigurationError
from ingestion.messages import decode
from tests.ingestion.collector.test_sequence import bar
from tests.support.live import BTC, START


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "collector.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    found = Spool(path, 100_000)
    yield found
    found.close()


def test_messages_come_out_in_the_order_in_which_they_went_in(spool: Spool) -> None:
    spool.append([bar(3), bar(1)], {BTC: START})
    spool.append([bar(2)], {})
    assert [decode(one.message) for one in spool.head(10)] == [bar(3), bar(1), bar(2)]


def test_what_is_removed_is_gone_and_the_rest_stays(spool: Spool) -> None:
    spool.append([bar(0), bar(1), bar(2)], {BTC: START})
    spool.remove(spool.head(2))
    assert [decode(one.message) for one in spool.head(10)] == [bar(2)]
    assert spool.messages == 1


def test_messages_and_watermarks_outlive_the_process(spool: Spool, path: Path) -> None:
    spool.append([bar(0), bar(1)], {BTC: START + 5})
    again = Spool(path, 100_000)
    assert (again.messages, again.bytes, again.watermark(BTC)) == (2, spool.bytes, START + 5)
    again.close()


def test_a_series_that_is_new_has_no_watermark(spool: Spool) -> None:
    assert spool.watermark(BTC) is None


def test_a_batch_that_fails_leaves_neither_bars_nor_watermarks(spool: Spool, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("create trigger no before insert on watermarks begin select raise(abort, 'disk full'); end")
    with pytest.raises(SpoolBroken, match="disk full"):
        spool.append([bar(0)], {BTC: START})
    assert (spool.messages, spool.head(10), spool.watermark(BTC)) == (0, [], None)


def test_it_is_full_from_its_bound_on_until_a_tenth_has_drained(path: Path) -> None:
    spool = Spool(path, 10_000)
    while not spool.is_full:
        spool.append([bar(spool.messages)], {})
    assert 10_000 <= spool.bytes < 11_000
    spool.remove(spool.head(1))
    assert spool.is_full
    spool.remove(spool.head(3))
    assert not spool.is_full
    spool.close()


def test_it_survives_power_cuts_because_commits_are_synchronous(spool: Spool) -> None:
    assert spool._connection.execute("pragma synchronous").fetchone() == (2,)


def test_a_file_that_is_no_spool_is_named(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(ConfigurationError, match=r"collector\.db"):
        Spool(path, 1000)
