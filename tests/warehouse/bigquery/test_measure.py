"""What BigQuery is asked for metadata and checks: the answers on an emulator, and that partitions are always named."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from support import bigquery_emulator
from support.bigquery_emulator import PROJECT

from ingestion.klines import Month
from warehouse.bigquery import measure
from warehouse.measure import Gap

pytestmark = pytest.mark.bigquery

_PYTHON = os.environ.get("KLINEHOUSE_TEST_BIGQUERY")  # read before fixtures clear the environment
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
MAY, HOUR = datetime(2024, 5, 31, 20, tzinfo=UTC), timedelta(hours=1)
INDICATORS = ("close", "sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_lower")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bigquery.Client]:
    if not _PYTHON or not Path(_PYTHON).exists():
        pytest.skip("KLINEHOUSE_TEST_BIGQUERY does not name a Python of the environment of the stand-ins")
    with bigquery_emulator.running(_PYTHON, tmp_path_factory.mktemp("bigquery")) as emulator:
        options = {"api_endpoint": emulator.url}
        credentials = AnonymousCredentials()
        found = bigquery.Client(PROJECT, credentials=credentials, client_options=options)
        for name in ("crypto_raw", "crypto_analytics"):
            found.create_dataset(name)
        fill(found)
        yield found


def fill(client: bigquery.Client) -> None:
    """Eight hourly bars of BTCUSDT over the end of May 2024, two of ETHUSDT, one of SOLUSDT that has just closed."""
    columns = "symbol string, `interval` string, open_time timestamp, close_time timestamp"
    floats = ", ".join(f"{name} float64" for name in INDICATORS)
    bars = [("BTCUSDT", MAY + hour * HOUR) for hour in range(8)]
    bars += [("ETHUSDT", MAY + hour * HOUR) for hour in range(2)] + [("SOLUSDT", NOW - HOUR)]
    rows = ", ".join(
        f"('{symbol}', '1h', timestamp '{at}', timestamp '{at + HOUR}'" + f", {number}.0" * len(INDICATORS) + ")"
        for number, (symbol, at) in enumerate(bars)
    )
    for statement in (
        f"create table crypto_analytics.market_data_unified ({columns}, {floats}) partition by date(open_time) "
        "options (require_partition_filter = true)",
        f"insert into crypto_analytics.market_data_unified values {rows}",
        "create table crypto_analytics.dim_symbols as select 'BTCUSDT' as symbol",
        "create table crypto_raw.klines_coverage as select * from unnest([struct('BTCUSDT' as symbol, '1h' as "
        f"`interval`, timestamp '{MAY + 8 * HOUR}' as covered_until), ('ENDUSDT', '1h', timestamp '{NOW}'), "
        f"('SOLUSDT', '1h', timestamp '{MAY}'), ('BTCUSDT', '5m', timestamp '{NOW}')])",
        "create table crypto_analytics.int_klines_gaps as select 'BTCUSDT' as symbol, 12 as missing_bars, "
        f"timestamp '{MAY}' as first_missing_open_time, timestamp '{MAY + HOUR}' as resumed_at, 'missing' as verdict",
    ):
        client.query(statement).result()


def test_rows_are_counted_by_month(client: bigquery.Client) -> None:
    start, end = Month(2024, 5).start, Month(2024, 6).end
    assert measure.bars_by_month(client, start, end) == {Month(2024, 5): 6, Month(2024, 6): 4}
    assert measure.bars_by_month(client, start, Month(2024, 5).end) == {Month(2024, 5): 6}
    assert measure.bars_by_month(client, Month(2023, 1).start, Month(2023, 1).end) == {}


def test_rows_of_a_table_are_counted(client: bigquery.Client) -> None:
    assert measure.row_count(client, "dim_symbols") == 1


def test_the_newest_bars_before_an_instant_are_in_order_of_time(client: bigquery.Client) -> None:
    found = measure.latest_bars(client, "BTCUSDT", "1h", Month(2024, 6).end, 3)
    assert found["open_time"].to_pylist() == [MAY + hour * HOUR for hour in (5, 6, 7)]
    assert found["bb_lower"].to_pylist() == [5.0, 6.0, 7.0]


def test_a_series_without_new_bars_has_a_chart_of_nothing(client: bigquery.Client) -> None:
    found = measure.latest_bars(client, "BTCUSDT", "1h", NOW)
    assert (found.num_rows, found.column_names[:2]) == (0, ["open_time", "close"])


def test_how_new_a_series_is_its_newest_bars_tell_or_else_its_sources(client: bigquery.Client) -> None:
    found = measure.newest_closes(client, "1h")
    week = datetime.now(UTC) - timedelta(days=7)
    assert (found["BTCUSDT"], found["SOLUSDT"]) == (MAY + 8 * HOUR, NOW)
    assert abs(found["ENDUSDT"] - week) < timedelta(minutes=5), "asked today, and there was nothing"
    assert set(found) == {"BTCUSDT", "SOLUSDT", "ENDUSDT"}


def test_gaps_are_told_with_their_verdict(client: bigquery.Client) -> None:
    assert measure.gaps(client) == [Gap("BTCUSDT", MAY, MAY + HOUR, 12, "missing")]


def test_jobs_say_what_they_are_for(client: bigquery.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[Any] = []
    query = client.query
    monkeypatch.setattr(client, "query", lambda sql, job_config: (configured.append(job_config), query(sql))[1])
    measure.row_count(client, "dim_symbols")
    assert configured[0].labels == {"app": "klinehouse", "purpose": "row-count"}
