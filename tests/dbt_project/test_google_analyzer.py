"""Google's analyzer of BigQuery's SQL takes what is right, and says what is wrong with what is not."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.googlesql import Catalog, GoogleSql, Parameters, analyze_all

pytestmark = pytest.mark.bigquery


def table(**columns: str) -> list[Mapping[str, str]]:
    """Columns as BigQuery's API gives them."""
    return [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in columns.items()]


CATALOG: Catalog = {
    "klinehouse-test.crypto_raw.klines": table(
        symbol="STRING",
        interval="STRING",
        open_time="TIMESTAMP",
        close="NUMERIC",
        trades="INTEGER",
        source="STRING",
    ),
    "klinehouse-test.crypto_raw.run_symbols": table(symbol="STRING"),
    "klinehouse-test.crypto_analytics.market_data_unified": table(
        symbol="STRING", interval="STRING", open_time="TIMESTAMP", close="FLOAT", ema_50="FLOAT", hour="INTEGER"
    ),
    "klinehouse-test.crypto_analytics.dim_dates": table(date_day="DATE", is_weekend="BOOLEAN"),
}
BARS = "`klinehouse-test`.`crypto_analytics`.`market_data_unified`"
DATES = "`klinehouse-test`.`crypto_analytics`.`dim_dates`"
KLINES = "`klinehouse-test`.`crypto_raw`.`klines`"

WRONG = {
    "a column that is not there": (f"select nope from {BARS}", "Unrecognized name: nope"),
    "a table that is not there": ("select 1 from `klinehouse-test`.`crypto_raw`.`nope`", "Table not found"),
    "a project that is not there": ("select 1 from `other`.`crypto_raw`.`klines`", "Table not found"),
    "a function that is not there": (f"select epoch_us(open_time) from {BARS}", "Function not found: epoch_us"),
    "arguments that are too many": (f"select stddev(close, 2) from {BARS}", "STDDEV"),
    "a text that is added to": (f"select symbol + 1 from {BARS}", "No matching signature"),
    "a text that is divided": (f"select safe_divide(symbol, 1) from {BARS}", "SAFE_DIVIDE"),
    "an instant compared with a date": (f"select open_time > date_day from {BARS}, {DATES}", "No matching signature"),
    "a date less an instant": (
        f"select timestamp_diff(date_day, open_time, day) from {BARS}, {DATES}",
        "TIMESTAMP_DIFF",
    ),
    "the order of date_trunc's arguments": (f"select date_trunc('month', open_time) from {BARS}", "date part"),
    "a cast by colons": (f"select close::int64 from {BARS}", "Syntax error"),
    "a type of DuckDB": (f"select cast(close as double) from {BARS}", "Type not found: double"),
    "text by another name": (f"select cast(close as varchar) from {BARS}", "Type not found: varchar"),
    "an instant by another name": ("select timestamptz '2024-01-01 00:00:00+00'", "Syntax error"),
    "exclude": (f"select * exclude (close) from {BARS}", "Syntax error"),
    "a filter of an aggregate": (f"select count(*) filter (where close > 1) from {BARS}", "Syntax error"),
    "a column that is not grouped": (f"select symbol, close from {BARS} group by symbol", "neither grouped"),
    "an aggregate without a group": (f"select symbol, max(close) from {BARS}", "neither grouped"),
    "the reserved word interval": (f"select interval from {BARS}", "Unexpected keyword FROM"),
    "a name in double quotes": (f'select "interval".x from {BARS}', "Cannot access field"),
    "a union of neither kind": ("select 1 union select 2", "ALL or keyword DISTINCT"),
    "a union of different types": ("select 'a' union all select 1", "UNION ALL"),
    "a range over instants": (
        f"select sum(close) over (order by open_time range interval 1 day preceding) from {KLINES}",
        "RANGE",
    ),
    "a frame of lag": (
        f"select lag(close) over (order by open_time rows between 1 preceding and current row) from {BARS}",
        "framing",
    ),
    "a partition by doubles": (f"select sum(hour) over (partition by close) from {BARS}", "FLOAT64"),
    "a window in replace": (f"select * replace (lag(close) over (order by open_time) as close) from {BARS}", "REPLACE"),
    "a limit that is computed": (f"select 1 from {BARS} limit 1 + 1", "Syntax error"),
    "a limit inside a window": (f"select array_agg(close limit 1) over () from {BARS}", "LIMIT"),
    "a merge that sets a column that is not there": (
        f"merge into {BARS} as t using {KLINES} as s on t.symbol = s.symbol when matched then update set nope = 1",
        "nope",
    ),
    "a merge on a column that is not there": (
        f"merge into {BARS} as t using {KLINES} as s on t.symbol = s.nope when matched then delete",
        "nope",
    ),
    "a merge of a text into a number": (
        f"merge into {BARS} as t using {KLINES} as s on false when not matched then insert (hour) values (s.symbol)",
        "type",
    ),
    "an insert of too few columns": (f"insert into {BARS} (symbol, close) select symbol from {BARS}", "column count"),
    "an insert of another type": (f"insert into {BARS} (hour) select symbol from {BARS}", "type"),
    "an insert of a decimal into an integer": (f"insert into {KLINES} (trades) select close from {KLINES}", "type"),
    "a delete without where": (f"delete from {BARS}", "WHERE"),
    "a delete with using": (f"delete from {BARS} using {KLINES} as s where true", "Syntax error"),
    "a table partitioned by a column that is not there": (
        f"create or replace table `klinehouse-test`.`crypto_analytics`.`new` partition by nope as select * from {BARS}",
        "nope",
    ),
    "a columns' list that is longer than the query": (
        f"create table `klinehouse-test`.`crypto_analytics`.`new` (a int64, b int64) as select hour from {BARS}",
        "column",
    ),
    "the second statement of a script": (f"begin transaction; delete from {BARS} where nope; commit", "nope"),
    "a variable that is not declared": ("set days = [current_date()]", "Undeclared variable: days"),
    "a variable of another type": (
        f"declare days array<date>; set (days) = (select as struct array_agg(symbol) from {BARS})",
        "coerced",
    ),
    "a block of the scripting language": ("if true then select 1; end if", "not covered"),
    "nothing": ("-- only a comment", "No statement"),
}

RIGHT = {
    "a table by its full name": f"select symbol, `interval` from {BARS}",
    "a table in one pair of backquotes": "select symbol from `klinehouse-test.crypto_raw.klines`",
    "a table without its project": "select symbol from crypto_raw.klines",
    "the value at the latest instant": f"select symbol, max_by(close, open_time) from {BARS} group by symbol",
    "a window by name": f"select lag(close) over w from {BARS} window w as (partition by symbol order by open_time)",
    "qualify": f"select * from {BARS} qualify row_number() over (partition by symbol order by open_time) = 1",
    "a cast to bigint": f"select cast(close as bigint) from {BARS}",
    "a query with parameters": f"select * from {BARS} where open_time >= @since and symbol in unnest(@symbols)",
    "a transaction": f"""
        begin transaction;
        delete from {BARS} where symbol in (select symbol from `klinehouse-test`.`crypto_raw`.`run_symbols`);
        insert into {BARS} (symbol, close) select symbol, cast(close as float64) from {KLINES};
        commit transaction;
    """,
    "a merge of partitions as dbt writes it": f"""
        declare dbt_partitions_for_replacement array<date>;
        create temp table market_data_unified__dbt_tmp as select * from {BARS};
        set (dbt_partitions_for_replacement) = (
            select as struct array_agg(distinct date(open_time) ignore nulls) from market_data_unified__dbt_tmp
        );
        merge into {BARS} as DBT_INTERNAL_DEST
        using (select * from market_data_unified__dbt_tmp) as DBT_INTERNAL_SOURCE
        on false
        when not matched by source and date(DBT_INTERNAL_DEST.open_time) in unnest(dbt_partitions_for_replacement)
            then delete
        when not matched then insert (symbol, `interval`) values (symbol, `interval`);
        drop table if exists market_data_unified__dbt_tmp
    """,
    "a table with partitions": f"""
        /* {{"app": "dbt"}} */
        create or replace table `klinehouse-test`.`crypto_analytics`.`new`
        partition by timestamp_trunc(open_time, month) cluster by symbol
        options (require_partition_filter = true)
        as (select * from {BARS});
    """,
    "semicolons that end nothing": "select ';', \"a;\", r'\\;', '''b';''' /* ; */ -- ;\n, 1 as `a;b`",
}


@pytest.mark.parametrize(("statement", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_its_reason(google_sql: GoogleSql, statement: str, said: str) -> None:
    (analysis,) = google_sql.analyze([statement], CATALOG)
    assert said in (analysis.error or "taken")


@pytest.mark.parametrize("statement", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_taken(google_sql: GoogleSql, statement: str) -> None:
    (analysis,) = google_sql.analyze([statement], CATALOG)
    assert analysis.error is None


PARAMETERS = {
    "of its type": (f"select 1 from {BARS} where symbol in unnest(@given)", [("given", "ARRAY<STRING>")], None),
    "by position": (f"select 1 from {BARS} where hour = ?", [(None, "INT64")], None),
    "of another type": (f"select 1 from {BARS} where hour = @given", [("given", "STRING")], "No matching signature"),
    "that is missing": (f"select 1 from {BARS} where hour = @given", [], "given"),
}


@pytest.mark.parametrize(("query", "parameters", "said"), PARAMETERS.values(), ids=PARAMETERS)
def test_a_parameter_has_the_type_that_is_given(
    google_sql: GoogleSql, query: str, parameters: Parameters, said: str | None
) -> None:
    (analysis,) = google_sql.analyze([query], CATALOG, [parameters])
    assert analysis.error is None if said is None else said in (analysis.error or "taken")


def test_a_statement_sees_the_tables_that_earlier_ones_created(google_sql: GoogleSql) -> None:
    read = "select hour from `klinehouse-test`.`crypto_analytics`.`made`"
    before, _, after = google_sql.analyze([read, f"create table {read[17:]} as select hour from {BARS}", read], CATALOG)
    assert before.error is not None
    assert after.columns == (("hour", "INT64"),)


def test_the_position_of_an_error_is_that_in_the_script(google_sql: GoogleSql) -> None:
    (analysis,) = google_sql.analyze(["select 1;\n\n  select\n    nope"], {})
    assert analysis.error == "Unrecognized name: nope [at 4:5]"


def test_of_a_folder_all_that_is_wrong_is_found(google_sql: GoogleSql, tmp_path: Path) -> None:
    (tmp_path / "models" / "model.yml").mkdir(parents=True)
    (tmp_path / "models" / "right.sql").write_text(f"select symbol from {BARS}\n")
    (tmp_path / "models" / "model.yml" / "wrong.sql").write_text(f"select nope from {BARS}\n")
    assert analyze_all(google_sql, tmp_path, CATALOG) == {
        "models/model.yml/wrong.sql": "Unrecognized name: nope [at 1:8]"
    }
