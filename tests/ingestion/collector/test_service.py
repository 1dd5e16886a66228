"""The collector as a whole, against a scripted exchange."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingestion.collector.service import Service
from ingestion.collector.spool import Spool, SpoolBroken
from ingestion.errors import ConfigurationError
from ingestion.grid import instant
from ingestion.klines import Month
from ingestion.raw_zone import Environment, RawZone
from ingestion.simulator.server import build_app, running
from tests.ingestion.collector.conftest import Collecting
from tests.support.homes import provenance, random_walk
from tests.support.live import BTC, ETH, MINUTE, START, combined, kline_event, live, serving, until, values

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost


def minute(number: int) -> int:
    return START + number * MINUTE


def close(collecting: Collecting, *minutes: int, **how: bool) -> None:
    for number in minutes:
        collecting.exchange.close(minute(number), **how)


def await_bars(collecting: Collecting, *minutes: int) -> None:
    """Wait for the last of these, then they are all that came, in this order."""
    until(lambda: len(collecting.bars.opens()) >= len(minutes))
    assert collecting.bars.opens() == list(minutes)


# --- what is published ---------------------------------------------------------------------------------------------


def test_a_closed_bar_is_published_as_it_came(collecting: Collecting) -> None:
    close(collecting.start(), 0)
    [bar] = until(collecting.bars.read)
    assert (bar.series, bar.open_time, bar.close_time) == (BTC, START, START + MINUTE - 1000)
    assert (bar.source, bar.open, bar.trades) == ("stream", values(START)["open"], 7)


def test_an_open_bar_is_not_published(collecting: Collecting) -> None:
    collecting.start().exchange.trade(START)
    close(collecting, 0)
    await_bars(collecting, 0)


def test_a_frame_that_comes_twice_is_published_once(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0)
    collecting.exchange.send(combined(BTC, kline_event(BTC, START, closed=True)))
    close(collecting, 1)
    await_bars(collecting, 0, 1)
    assert collecting.metric("duplicates_total") == 1


def test_garbage_is_counted_and_the_rest_goes_on(collecting: Collecting) -> None:
    collecting.start()
    for text in ("{", "[]", '{"e":"trade"}', json.dumps({"stream": "x", "data": {"e": "kline", "k": {}}})):
        collecting.exchange.send(text)
    collecting.exchange.send(combined(BTC, kline_event(BTC, START + 1000, closed=True)))
    close(collecting, 0)
    await_bars(collecting, 0)
    assert collecting.metric("errors_total") == 5


def test_a_frame_that_is_too_large_costs_the_connection_and_no_bar(collecting: Collecting) -> None:
    collecting.start().exchange.send("x" * (1 << 20))
    until(lambda: collecting.exchange.connected == 2 and collecting.is_settled())
    close(collecting, 0)
    await_bars(collecting, 0)


def test_a_frame_from_a_far_future_is_not_believed(collecting: Collecting) -> None:
    collecting.start().exchange.send(combined(BTC, kline_event(BTC, minute(10_000), closed=True)))
    close(collecting, 0)
    await_bars(collecting, 0)


# --- what the stream did not bring ---------------------------------------------------------------------------------


def test_a_bar_that_was_skipped_comes_by_rest_and_in_order(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0)
    close(collecting, 1, 2, send=False)
    close(collecting, 3)
    await_bars(collecting, 0, 1, 2, 3)
    assert collecting.bars.sources() == ["stream", "rest", "rest", "stream"]


def test_a_closing_frame_that_does_not_come_is_missed_by_the_clock_of_the_exchange(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0)
    close(collecting, 1, send=False)
    collecting.exchange.move(minute(2) + 12_000_000)
    collecting.exchange.send(
        combined(BTC, kline_event(BTC, minute(2), closed=False, event_time=minute(2) + 12_000_000))
    )
    await_bars(collecting, 0, 1)


def test_bars_that_closed_while_the_connection_was_lost_come_by_rest_with_the_same_values(
    collecting: Collecting,
) -> None:
    collecting.start()
    close(collecting, 0)
    await_bars(collecting, 0)
    collecting.exchange.drop()
    close(collecting, 1, 2, 3)
    collecting.exchange.move(minute(4) + 11_000_000)
    await_bars(collecting, 0, 1, 2, 3)
    assert collecting.bars.sources() == ["stream", "rest", "rest", "rest"]
    for bar in collecting.bars.all:
        told = {name: getattr(bar, name) for name in values(0)} | {"trades": bar.trades}
        assert told == values(bar.open_time) | {"trades": 7}
        assert bar.close_time == bar.open_time + MINUTE - 1000


def test_a_bar_that_the_exchange_never_had_is_passed_over(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0)
    close(collecting, 5)
    await_bars(collecting, 0, 5)


def test_newer_bars_do_not_wait_for_rest_to_come_back(collecting: Collecting, host: object) -> None:
    collecting.start()
    close(collecting, 0)
    await_bars(collecting, 0)
    collecting.exchange.rest.blocked = collecting.exchange.rest.reply(403)
    close(collecting, 1, send=False)
    close(collecting, 2)
    await_bars(collecting, 0, 2)
    collecting.exchange.rest.blocked = None
    close(collecting, 3)
    until(lambda: sorted(collecting.bars.opens()) == [0, 1, 2, 3])


def test_a_long_absence_is_caught_up_as_far_as_set_and_the_rest_left_to_history(collecting: Collecting) -> None:
    collecting.start(catch_up_bars=3)
    close(collecting, 0)
    await_bars(collecting, 0)
    collecting.stop()
    close(collecting, *range(1, 20))
    collecting.exchange.move(minute(20) + 5_000_000)
    collecting.start(catch_up_bars=3)
    await_bars(collecting, 0, 17, 18, 19)


# --- connections ---------------------------------------------------------------------------------------------------


def test_a_connection_is_handed_over_before_its_end_and_no_bar_is_fetched(collecting: Collecting) -> None:
    collecting.start(connection_life=120)
    close(collecting, 0)
    await_bars(collecting, 0)
    asked = len(collecting.exchange.rest.asked_rest)
    number = 1
    while collecting.metric("rotations_total") < 5:
        close(collecting, number)
        number += 1
        until(lambda: collecting.bars.opens() == list(range(number)))  # noqa: B023 - called here
    assert collecting.metric("reconnects_total") == 0
    assert len(collecting.exchange.rest.asked_rest) == asked


def test_a_server_that_shuts_down_is_left_for_another_connection(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0)
    collecting.exchange.send('{"e":"serverShutdown","E":1770123456789}')
    until(lambda: collecting.metric("rotations_total") == 1)
    close(collecting, 1)
    await_bars(collecting, 0, 1)
    assert collecting.bars.sources() == ["stream", "stream"]


def test_a_connection_without_bars_is_given_up(collecting: Collecting) -> None:
    collecting.start(stale_after=0.4)
    until(lambda: collecting.exchange.connected >= 2)
    assert collecting.metric("errors_total") >= 1


def test_a_connection_whose_subscription_is_not_answered_is_given_up(collecting: Collecting) -> None:
    collecting.exchange.answers_subscriptions = False
    with serving(Service(collecting.settings(stale_after=0.4), collecting.bus)):
        until(lambda: collecting.exchange.connected >= 2)


def test_more_series_than_a_connection_carries_have_several(
    host: "ArchiveHost", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.collector.service.MAX_STREAMS", 1)
    with live(host, BTC, ETH) as exchange:
        collecting = Collecting(exchange, tmp_path / "home").start()
        assert sorted(request["params"] for request in exchange.requests) == [
            ["btcusdt@kline_1m"],
            ["ethusdt@kline_1m"],
        ]
        close(collecting, 0)
        until(lambda: len(collecting.bars.read()) >= 2)
        assert (collecting.bars.opens(BTC), collecting.bars.opens(ETH)) == ([0], [0])
        collecting.close()


# --- restarts ------------------------------------------------------------------------------------------------------


def test_after_a_restart_it_goes_on_where_it_was(collecting: Collecting) -> None:
    collecting.start()
    close(collecting, 0, 1)
    await_bars(collecting, 0, 1)
    collecting.stop()
    close(collecting, 2, 3)
    collecting.exchange.move(minute(4) + 5_000_000)
    collecting.start()
    close(collecting, 4)
    await_bars(collecting, 0, 1, 2, 3, 4)


def test_a_new_series_begins_where_history_ends(collecting: Collecting) -> None:
    zone = RawZone(collecting.settings().raw_root)
    zone.claim(Environment.of(None))
    rows = random_walk(BTC, instant(minute(-10)), 5)
    zone.write_history(BTC, Month(2025, 3), rows, provenance(BTC, Month(2025, 3), rows, instant(minute(-5))))
    close(collecting, *range(-10, 0))
    collecting.exchange.move(START + 10_000_000)
    collecting.start()
    close(collecting, 0)
    await_bars(collecting, -5, -4, -3, -2, -1, 0)


def test_the_spool_failing_costs_no_bar(collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    collecting.start()
    close(collecting, 0)
    await_bars(collecting, 0)
    append, failures = Spool.append, [SpoolBroken("The disk is full.", "Make room.")]

    def failing(*arguments: object) -> None:
        if failures:
            raise failures.pop()
        append(*arguments)

    monkeypatch.setattr(Spool, "append", failing)
    close(collecting, 1)
    until(lambda: not failures)
    close(collecting, 2)
    await_bars(collecting, 0, 1, 2)


# --- the bus -------------------------------------------------------------------------------------------------------


def test_what_comes_while_the_bus_is_away_is_published_in_order_when_it_is_back(collecting: Collecting) -> None:
    collecting.start()
    collecting.bus.away = True
    close(collecting, 0, 1, 2)
    until(lambda: collecting.ask("/health")[1]["spool_messages"] == 3)
    collecting.bus.away = False
    close(collecting, 3)
    await_bars(collecting, 0, 1, 2, 3)
    until(lambda: collecting.ask("/health")[1]["spool_messages"] == 0)


def test_what_is_in_the_spool_is_published_after_a_restart(collecting: Collecting) -> None:
    collecting.start()
    collecting.bus.away = True
    close(collecting, 0, 1)
    until(lambda: collecting.ask("/health")[1]["spool_messages"] == 2)
    collecting.stop()
    collecting.bus.away = False
    collecting.start()
    await_bars(collecting, 0, 1)


def test_a_bus_that_stays_away_is_said(collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.collector.health._BUS_GRACE", 0.1)
    collecting.start()
    collecting.bus.away = True
    close(collecting, 0)
    until(lambda: collecting.ask("/health")[0] == 503)
    assert "bus" in collecting.ask("/health")[1]["problems"][0]
    collecting.bus.away = False
    until(lambda: collecting.ask("/health")[0] == 200)


def test_what_is_in_the_spool_is_published_though_the_exchange_cannot_be_reached(collecting: Collecting) -> None:
    collecting.start()
    collecting.bus.away = True
    close(collecting, 0)
    until(lambda: collecting.ask("/health")[1]["spool_messages"] == 1)
    collecting.stop()
    collecting.bus.away = False
    collecting.exchange.rest.blocked = collecting.exchange.rest.reply(403)
    with serving(Service(collecting.settings(), collecting.bus)):
        await_bars(collecting, 0)


def test_a_full_spool_is_said_and_nothing_is_lost(collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.collector.service.MEGABYTE", 2000)
    collecting.start(spool_mb=1)
    collecting.bus.away = True
    spooled = 0
    while collecting.ask("/health")[1]["spool_bytes"] < 2000:
        close(collecting, spooled)
        spooled += 1
        until(lambda: collecting.ask("/health")[1]["spool_messages"] == spooled)  # noqa: B023 - called here
    close(collecting, *range(spooled, 10))
    until(lambda: collecting.metric("bars_refused_total") == 10 - spooled)
    status, report = collecting.ask("/health")
    assert status == 503
    assert "spool is full" in report["problems"][0]
    assert report["spool_messages"] == spooled
    collecting.bus.away = False
    until(lambda: collecting.ask("/health")[1]["spool_messages"] == 0)
    close(collecting, 10)
    await_bars(collecting, *range(11))


# --- what it tells -------------------------------------------------------------------------------------------------


def test_health_tells_what_a_monitor_needs(collecting: Collecting) -> None:
    close(collecting.start(), 0)
    await_bars(collecting, 0)
    until(lambda: collecting.ask("/health")[1]["messages_published"] == 1)
    status, report = collecting.ask("/health")
    assert status == 200
    assert {name: report[name] for name in ("status", "problems", "websocket_connected", "errors")} == {
        "status": "ok",
        "problems": [],
        "websocket_connected": True,
        "errors": 0,
    }
    assert (report["messages_received"] >= 1, report["candles_processed"]) == (True, 1)
    assert report["last_message_age_s"] < 60
    assert report["last_message_time"].endswith("Z")
    assert report["series"]["BTCUSDT 1m"] == {
        "last_closed_open_time": "2025-03-01T12:00:00Z",
        "settled_until": "2025-03-01T12:01:00Z",
        "catching_up": False,
    }


def test_latest_has_the_price_of_the_open_bar(collecting: Collecting) -> None:
    close(collecting.start(), 0)
    collecting.exchange.trade(minute(1))
    [latest] = until(lambda: [one for one in collecting.ask("/latest")[1] if not one["closed"]])
    assert (latest["symbol"], latest["open_time"]) == ("BTCUSDT", "2025-03-01T12:01:00Z")
    assert latest["price"] == values(minute(1))["close"]


def test_metrics_have_the_latencies_and_the_depth_of_the_spool(collecting: Collecting) -> None:
    close(collecting.start(), 0)
    await_bars(collecting, 0)
    until(lambda: collecting.metric("received_to_published_seconds_count") == 1)
    assert (collecting.metric("spool_messages"), collecting.metric("connected"), collecting.metric("healthy")) == (
        0,
        1,
        1,
    )
    assert collecting.metric("last_message_age_seconds") < 60


def test_it_is_unhealthy_while_the_exchange_has_gone(collecting: Collecting) -> None:
    collecting.start(stale_after=0.3)
    until(lambda: collecting.ask("/health")[0] == 503)


def test_it_waits_for_an_exchange_that_cannot_be_reached_yet(collecting: Collecting) -> None:
    collecting.exchange.rest.blocked = collecting.exchange.rest.reply(403)
    with serving(Service(collecting.settings(), collecting.bus)) as collecting.url:
        status, report = until(
            lambda: (found := collecting.ask("/health")) and "403" in found[1]["problems"][0] and found
        )
        assert (status, report["status"]) == (503, "starting")
        assert collecting.ask("/latest") == (200, [])
        collecting.exchange.rest.blocked = None
        collecting.exchange.await_subscribed()


# --- what it refuses -----------------------------------------------------------------------------------------------


def test_streams_of_another_exchange_than_that_of_rest_are_not_taken(collecting: Collecting) -> None:
    with running(build_app()) as simulated:
        stream = simulated.replace("http", "ws", 1)
        with serving(Service(collecting.settings(stream_url=stream), collecting.bus)) as collecting.url:
            until(lambda: collecting.metric("errors_total") >= 1)
            assert collecting.metric("connected") == 0


def test_two_collectors_do_not_share_a_home(collecting: Collecting) -> None:
    collecting.start()
    with (
        pytest.raises(ConfigurationError, match="Another collector"),
        serving(Service(collecting.settings(), collecting.bus)),
    ):
        pass


def test_a_port_that_is_taken_is_named(collecting: Collecting, tmp_path: Path) -> None:
    port = int(collecting.start().url.rsplit(":", 1)[1])
    other = collecting.settings(home=tmp_path / "other", collector_port=port)
    with pytest.raises(ConfigurationError, match=str(port)), serving(Service(other, collecting.bus)):
        pass


def test_a_home_of_simulated_data_does_not_take_the_real_ones(collecting: Collecting) -> None:
    settings = collecting.settings()
    RawZone(settings.raw_root).claim(Environment.of("seed 1"))
    with pytest.raises(ConfigurationError, match="seed 1"):
        Service(settings, collecting.bus).run(lambda address: None)
