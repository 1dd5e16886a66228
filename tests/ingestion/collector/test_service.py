"""The collector as a whole, against a scripted exchange."""

from tests.ingestion.collector.conftest import Collecting
from tests.support.live import BTC, MINUTE, START, until


def test_a_closed_bar_is_published_as_it_came(collecting: Collecting) -> None:
    collecting.start().exchange.close(START)
    [bar] = until(collecting.bars.read)
    assert (bar.series, bar.open_time, bar.close_time) == (BTC, START, START + MINUTE - 1000)
    assert (bar.source, bar.open, bar.trades) == ("stream", f"{100 + START // MINUTE % 997}.00000000", 7)


def test_an_open_bar_is_not_published(collecting: Collecting) -> None:
    collecting.start().exchange.trade(START)
    collecting.exchange.close(START)
    until(collecting.bars.read)
    assert collecting.bars.opens() == [0]
