"""The costs in docs/bigquery.md are those that the command computes, from what the code says."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.bigquery_costs import DOCUMENT, document, with_parts
from benchmarks.bigquery_layout.figures import FILES_PER_LOAD, MINUTES, figures
from benchmarks.bigquery_layout.prices import QUERY, Price
from benchmarks.bigquery_layout.scans import (
    DAYS_LOOKED_THROUGH,
    LEAST_BILLED,
    MART,
    MEMORY,
    REACH,
    ROLLUPS,
    STREAMING_RUNS,
    Layout,
    Statement,
    daily_increment,
    live_increments,
    look_back,
)
from ingestion.settings import Settings
from orchestration.live import SUCCEEDED_AFTER
from warehouse import parity
from warehouse.bigquery import live, load

MACROS = Path(__file__).parents[2] / "dbt_project" / "macros"


def test_the_document_has_the_figures_of_the_command() -> None:
    text = DOCUMENT.read_text()
    assert with_parts(text, document()) == text, "run `python -m benchmarks.bigquery_costs --write`"


def test_a_row_has_the_bytes_of_bigquerys_types() -> None:
    found = figures(Layout(3, "5m"))
    # symbol, interval, source; open_time, close_time, ingested_at, trades; eight NUMERIC
    assert found["raw_bytes_per_row"] == (2 + 7) + (2 + 2) + (2 + 15) + 4 * 8 + 8 * 16
    # The same strings ('15m' has one character more); 3 instants, 16 doubles, 4 integers
    a_day = 415 * ((2 + 7) + (2 + 2) + (2 + 15) + 23 * 8) + 96
    assert found["mart_bytes_per_row"] == pytest.approx(a_day / 415)
    assert len(MART) == 26


def test_looking_back_for_a_daily_bar_reads_all_rows_of_1536_days_and_of_1024() -> None:
    # First whether there are enough bars, by their keys; then keys and closes.
    keys = 415 * (9 + 4 + 8) + 96
    assert look_back(Layout(1, "5m"), "1d") == 1536 * keys + 1024 * (keys + 415 * 8)


def test_with_tables_of_their_own_it_reads_only_daily_bars() -> None:
    assert look_back(Layout(1, "5m", own_tables=True), "1d") == 1536 * 21 + 1024 * 29


def test_a_table_is_billed_with_ten_megabytes_at_least() -> None:
    statement = Statement("small", {"one": 1.0, "other": 2.0 * LEAST_BILLED})
    assert statement.bytes_billed == 3 * LEAST_BILLED
    assert statement.bytes_read == 1 + 2 * LEAST_BILLED


def test_a_day_of_live_increments_makes_each_interval_when_its_bars_close() -> None:
    known = [
        next(statement for statement in one if statement.name == "reach").reads["mart"]
        for one in live_increments(Layout(1, "5m"), 5)
    ]
    longest = sorted(known, reverse=True)
    assert len(known) == 288
    assert known.index(longest[0]) == 287, "the day closes last"
    assert [known.index(size) % 48 for size in longest[1:6]] == [47] * 5, "six bars of 4h, the last with the day"


def test_the_daily_increment_grows_with_the_symbols() -> None:
    one, two = (sum(statement.bytes_read for statement in daily_increment(Layout(n, "5m"))) for n in (1, 2))
    assert two == pytest.approx(2 * one)


def test_what_is_free_is_taken_off() -> None:
    price = Price(2.0, "unit", "", "", free=10)
    assert (price.of(4), price.of(11)) == (0, 2)


def test_it_looks_back_as_far_as_the_models_do() -> None:
    memory = re.search(
        r"macro memory_bars\(\) %}{{ return\((\d+)\)", (MACROS / "indicators/indicators.sql").read_text()
    )
    reach = re.search(
        r"return\(\[memory_bars\(\), memory_bars\(\) \* (\d) // (\d)\]", (MACROS / "memory.sql").read_text()
    )
    assert memory is not None
    assert reach is not None
    assert (int(memory[1]), int(memory[1]) * int(reach[1]) // int(reach[2])) == (MEMORY, REACH)


def test_it_has_the_intervals_of_the_models() -> None:
    listed = re.search(r"for interval in \[(.*?)\]", (MACROS / "intervals.sql").read_text())
    assert listed is not None
    assert tuple(re.findall(r"'(\w+)'", listed[1])) == ROLLUPS


def test_streaming_runs_and_their_increments_are_as_many_as_they_are() -> None:
    assert Settings.model_fields["bigquery_increment_minutes"].default == MINUTES
    assert timedelta(days=1) == SUCCEEDED_AFTER * STREAMING_RUNS
    assert timedelta(days=DAYS_LOOKED_THROUGH) == live._LOOK_BACK


def test_a_query_has_one_price() -> None:
    assert QUERY.usd == parity.PRICE_PER_TIB


def test_it_loads_as_many_files_at_once_as_the_warehouse() -> None:
    assert load.FILES_PER_LOAD == FILES_PER_LOAD
