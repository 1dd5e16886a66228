{#
    Common table expressions, the last one called `name`: the bars of an increment's window, which come from `of_window`,
    and those around it that the averages tie to them. Of the bars before it there is only the close.

    Arguments:
        name         the resulting common table expression, with the columns of `of_window`: kline_columns()
        of_window    a common table expression that comes from bars_of_window
        starts       {interval: from when on it is read}, see increment_starts
#}
{% macro bars_around(name, of_window, starts) -%}
{%- set columns = kline_columns() -%}
{%- set known_before = ['symbol', interval_column(), 'open_time', 'close'] -%}

-- Series without a bar in the window, old or new, are as they were.
touched as (
    select
        symbol,
        {{ interval_column() }}
    from {{ of_window }}
    union {{ "distinct" if target.type == "bigquery" }}
    select
        symbol,
        {{ interval_column() }}
    from {{ this }}
    where {{ in_window_of_its_interval('open_time') }} and {{ in_scope('symbol') }}
),

-- What the averages remember lies before the window, in bars, not in days: a series may have holes. Only their closes
-- are needed.
bars_before as (
    {%- for interval in starts %}
        select
            bars.symbol,
            bars.{{ interval_column() }},
            bars.open_time,
            bars.close
        from {{ this }} as bars
        inner join touched
            on bars.symbol = touched.symbol and bars.{{ interval_column() }} = touched.{{ interval_column() }}
        where
            bars.{{ interval_column() }} = '{{ interval }}'
            and bars.open_time >= {{ starts[interval] }}
            and bars.open_time < {{ window_start(interval) }}
        {%- if starts[interval] != window_start(interval, memory_bars()) %}
            qualify row_number() over (partition by bars.symbol order by bars.open_time desc) <= {{ memory_bars() }}
        {%- endif %}
        {{ "union all" if not loop.last }}
    {%- endfor %}
),

-- And what remembers the window lies after it: these bars keep their prices and get their indicators anew.
bars_after as (
    {%- for interval in starts %}
        select bars.{{ columns | join(', bars.') }}
        from {{ this }} as bars
        inner join touched
            on bars.symbol = touched.symbol and bars.{{ interval_column() }} = touched.{{ interval_column() }}
        where bars.{{ interval_column() }} = '{{ interval }}' and bars.open_time >= {{ window_end(interval) }}
        qualify row_number() over (partition by bars.symbol order by bars.open_time) <= {{ memory_bars() }}
        {{ "union all" if not loop.last }}
    {%- endfor %}
),

{{ name }} as (
    select * from {{ of_window }}
    union all
    select * from bars_after
    union all
    select
        {%- for column in columns %}
            {{ column if column in known_before else 'null as ' ~ column }}
            {{- "," if not loop.last }}
        {%- endfor %}
    from bars_before
)
{%- endmacro %}
