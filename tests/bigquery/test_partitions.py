"""The partitions that a statement touches are told from its text; without the condition they are all."""

from datetime import date, timedelta

import pytest
from support.partitions import scans

DAYS = [date(2024, 3, 1) + timedelta(days) for days in range(10)]
BARS = "`p`.`crypto_analytics`.`market_data_unified`"
SINCE, UNTIL = "timestamp '2024-03-04 00:00:00+00'", "timestamp '2024-03-06 00:00:00+00:00'"
WINDOW = f"open_time >= {SINCE} and open_time < {UNTIL}"
MERGE = (
    f"merge into {BARS} as t using (select * from new) as s on false "
    "when not matched by source and {} then delete when not matched then insert (a) values (a)"
)

STATEMENTS = {
    "a window": (f"select 1 from {BARS} where {WINDOW}", [4, 5]),
    "a window whose end is in a day": (
        f"select 1 from {BARS} where open_time >= {SINCE} and open_time <= timestamp '2024-03-06 00:00:00+00'",
        [4, 5, 6],
    ),
    "a window from the other side": (
        f"select 1 from {BARS} where {SINCE} <= open_time and {UNTIL} > open_time",
        [4, 5],
    ),
    "a condition of its own name": (f"select 1 from {BARS} as b where b.open_time < {SINCE}", [1, 2, 3]),
    "days in a list": (
        f"select 1 from {BARS} where timestamp_trunc(open_time, day) in ({SINCE}, {UNTIL})",
        [4, 6],
    ),
    "a day": (f"select 1 from {BARS} where timestamp_trunc(open_time, day) = {SINCE}", [4]),
    "a second statement": (f"select 1; delete from {BARS} where {WINDOW} and symbol = 'A'", [4, 5]),
    "a source in a query of a query": (f"with a as (select * from {BARS} where {WINDOW}) select * from a", [4, 5]),
    "what a merge takes out": (MERGE.format(f"timestamp_trunc(t.open_time, day) in ({SINCE})"), [4]),
    "no condition": (f"select 1 from {BARS}", range(1, 11)),
    "a condition around it": (f"select * from (select * from {BARS}) where {WINDOW}", range(1, 11)),
    "a condition on another table": (
        f"select 1 from {BARS} as b inner join c on b.a = c.a where c.open_time >= {SINCE}",
        range(1, 11),
    ),
    "a condition on the longer months": (
        f"select 1 from {BARS} where timestamp_trunc(open_time, month) in ({SINCE})",
        range(1, 11),
    ),
    "one of two conditions": (f"select 1 from {BARS} where a = 1 or ({WINDOW})", range(1, 11)),
    "not a condition": (f"select 1 from {BARS} where not ({WINDOW})", range(1, 11)),
    "a bound that is computed": (f"select 1 from {BARS} where open_time >= (select max(at) from c)", range(1, 11)),
    "a parameter": (f"select 1 from {BARS} where open_time >= @since", range(1, 11)),
    "a column in a function": (f"select 1 from {BARS} where unix_micros(open_time) >= 1709600000000000", range(1, 11)),
    "a merge without a condition": (MERGE.format("true"), range(1, 11)),
}


@pytest.mark.parametrize(("statement", "days"), STATEMENTS.values(), ids=STATEMENTS)
def test_only_conditions_that_prune_count(statement: str, days: list[int]) -> None:
    (scan,) = scans(statement, ["market_data_unified"], DAYS)
    assert sorted(day.day for day in scan.days) == list(days)


@pytest.mark.parametrize(
    "statement",
    [
        f"insert into {BARS} (a) select a from b",
        f"create or replace table {BARS} as select a from b",
        f"create or replace view v as select * from {BARS}",
        f"drop table if exists {BARS}",
    ],
)
def test_what_reads_nothing_of_a_table_is_no_scan(statement: str) -> None:
    assert scans(statement, ["market_data_unified"], DAYS) == []


def test_a_scan_is_told_with_its_interval_and_whether_it_writes() -> None:
    read, write = (
        scans(text, ["market_data_unified"], DAYS)[0]
        for text in (
            f"select 1 from {BARS} as b where b.`interval` = '1h' and {WINDOW}",
            MERGE.format(f"timestamp_trunc(t.open_time, day) in ({SINCE})"),
        )
    )
    assert (read.interval, read.writes) == ("1h", False)
    assert (write.interval, write.writes) == (None, True)
