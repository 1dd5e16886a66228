"""The network between collector and exchange fails in every way that networks do; times are shortened, not waited."""

import random
from collections.abc import Iterator

import pytest

from ingestion.collector.service import Service
from tests.ingestion.collector.conftest import Collecting
from tests.support.live import MINUTE, START, serving, until
from tests.support.proxy import Proxy, proxy


@pytest.fixture
def network(collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the collector and the streams. Waits do not grow, since connections live for moments here."""
    monkeypatch.setattr("ingestion.collector.shards._GOOD_LIFE", 0.0)
    monkeypatch.setattr("ingestion.collector.shards._FIRST_WAIT", 0.1)
    monkeypatch.setattr("ingestion.collector.connections._CONNECT_TIMEOUT", 0.5)
    with proxy(int(collecting.exchange.url.rsplit(":", 1)[1])) as found:
        collecting.exchange.url = f"ws://127.0.0.1:{found.port}"
        yield found


def close(collecting: Collecting, number: int) -> None:
    collecting.exchange.close(START + number * MINUTE)


def await_whole(collecting: Collecting, bars: int) -> None:
    """Let time go on by trades of the next bar until all bars are there, once and in order."""

    def whole() -> bool:
        exchange = collecting.exchange
        exchange.move(max(exchange.now, START + bars * MINUTE + 12_000_000))
        exchange.trade(START + bars * MINUTE)
        return collecting.bars.opens() == list(range(bars))

    until(whole)


def test_a_half_open_connection_is_noticed_and_no_bar_is_missed(collecting: Collecting, network: Proxy) -> None:
    collecting.start(stale_after=0.6)
    close(collecting, 0)
    network.mode = "black_hole"
    close(collecting, 1)
    until(lambda: collecting.metric("errors_total") >= 1)
    network.mode = "pass"
    await_whole(collecting, 2)
    assert collecting.metric("reconnects_total") >= 1


def test_a_reset_costs_no_bar(collecting: Collecting, network: Proxy) -> None:
    collecting.start()
    close(collecting, 0)
    network.reset()
    close(collecting, 1)
    await_whole(collecting, 2)


def test_a_slow_link_costs_no_bar(collecting: Collecting, network: Proxy) -> None:
    network.delay, network.piece = 0.002, 64
    collecting.start()
    for number in range(5):
        close(collecting, number)
    await_whole(collecting, 5)
    assert collecting.metric("reconnects_total") == 0


def test_an_exchange_that_refuses_is_tried_until_it_does_not(collecting: Collecting, network: Proxy) -> None:
    network.mode = "refuse"
    with serving(Service(collecting.settings(stale_after=0.3), collecting.bus)) as collecting.url:
        until(lambda: network.accepted >= 3)
        until(lambda: collecting.ask("/health")[0] == 503)
        network.mode = "pass"
        collecting.exchange.await_subscribed()


def test_while_there_is_no_stream_bars_come_by_rest(
    collecting: Collecting, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.collector.core._POLL", 0.2)
    collecting.start()
    network.mode = "refuse"
    network.reset()
    for number in range(3):
        close(collecting, number)
    collecting.exchange.move(START + 3 * MINUTE + 12_000_000)
    until(lambda: collecting.bars.opens() == [0, 1, 2])


@pytest.mark.parametrize("url", ["wss://127.0.0.1:{port}", "ws://no-such-host.invalid"])
def test_failures_of_tls_and_of_names_are_counted_and_survived(
    collecting: Collecting, network: Proxy, url: str
) -> None:
    settings = collecting.settings(stream_url=url.format(port=network.port))
    with serving(Service(settings, collecting.bus)) as collecting.url:
        until(lambda: collecting.metric("errors_total") >= 2)
        assert collecting.metric("connected") == 0


def test_after_faults_of_every_kind_each_bar_is_there_once(collecting: Collecting, network: Proxy) -> None:
    collecting.start(stale_after=0.6)
    chance = random.Random(11)
    ends = {
        "reset": network.reset,
        "drop": collecting.exchange.drop,
        "shutdown": lambda: collecting.exchange.send('{"e":"serverShutdown","E":1770123456789}'),
        "black_hole": lambda: setattr(network, "mode", "black_hole"),
    }
    for number in range(16):
        connected = collecting.exchange.connected
        if number % 2:
            ends[chance.choice(list(ends))]()
        else:
            collecting.exchange.send("\x00garbage")
        close(collecting, number)
        if number % 2:
            until(lambda: network.accepted > connected)  # noqa: B023 - called here
            network.mode = "pass"
            until(lambda: collecting.exchange.connected > connected)  # noqa: B023 - called here
    await_whole(collecting, 16)
    assert collecting.exchange.connected >= 9
