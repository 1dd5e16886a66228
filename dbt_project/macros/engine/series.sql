{#
    Bars within their series. What DuckDB and BigQuery write differently here is a matter of speed: a window that is
    partitioned and ordered makes DuckDB sort all rows once more, one without either streams over the rows as they come.
    So on DuckDB the rows are put in order once, and every later step takes them in that order.
#}

{#
    Common table expressions, the last one called `name`: the columns of `source` and bar_index, the number of bars of the
    series before this one. On DuckDB its rows come one series after the other, each in order of time.

    DuckDB keeps the order of a subquery through projections, filters and windows `over ()`; joins and groupings after it
    would lose it. tests/warehouse/test_indicators.py feeds it bars in disorder.
#}
{% macro numbered_bars(name, source) %}{{ adapter.dispatch('numbered_bars')(name, source) }}{% endmacro %}

{% macro default__numbered_bars(name, source) -%}
{{ name }} as (
    select
        *,
        row_number() over (partition by symbol, {{ interval_column() }} order by open_time) - 1 as bar_index
    from {{ source }}
)
{%- endmacro %}

{% macro duckdb__numbered_bars(name, source) -%}
{{ name }}_positions as (
    select
        *,
        row_number() over () as row_position,
        symbol = lag(symbol) over () and {{ interval_column() }} = lag({{ interval_column() }}) over () as continues
    from (select * from {{ source }} order by symbol, {{ interval_column() }}, open_time) as in_order
),

{{ name }} as (
    select
        {{ all_but(['row_position', 'continues']) }},
        cast(
            row_position
            - max(case when continues then null else row_position end)
                over (rows between unbounded preceding and current row)
            as integer
        ) as bar_index
    from {{ name }}_positions
)
{%- endmacro %}


{# The value of a column `bars` bars earlier in the series, 0 before its first one. The source is numbered_bars'. #}
{% macro earlier(column, bars) %}{{ adapter.dispatch('earlier')(column, bars) }}{% endmacro %}
{% macro default__earlier(column, bars) -%}
    case
        when bar_index >= {{ bars }}
            then lag({{ column }}, {{ bars }}) over (partition by symbol, {{ interval_column() }} order by bar_index)
        else 0
    end
{%- endmacro %}
{% macro duckdb__earlier(column, bars) -%}
    case when bar_index >= {{ bars }} then lag({{ column }}, {{ bars }}) over () else 0 end
{%- endmacro %}
