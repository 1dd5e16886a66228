-- The linter takes the `rows` of a window without order (in numbered_bars) for a name, and cannot parse on.
-- sqlfluff:ignore:parsing
{{
    config(**kept_by_window(
        partition=('open_time', 'day'),
        large=true,
        meta={'published_by_month': true},
        post_hook="{{ note_full_build() }}",
    ))
}}

{%- set levels = [var('base_interval')] + rollup_intervals() -%}
{%- set columns = kline_columns() -%}

{%- set starts = increment_starts() if is_incremental() else dict.fromkeys(levels) -%}

with {{ bars_of_window('bars_of_window', starts) }},

{% if is_incremental() -%}
    -- Series without a bar in the window, old or new, are as they were.
    touched as (
        select
            symbol,
            {{ interval_column() }}
        from bars_of_window
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
            qualify row_number() over (partition by bars.symbol order by bars.open_time desc) <= {{ memory_bars() }}
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

    bars as (
        select * from bars_of_window
        union all
        select * from bars_after
        union all
        select
            {%- for column in columns %}
                {{ column if column in ('symbol', interval_column(), 'open_time', 'close') else 'null as ' ~ column }}
                {{- "," if not loop.last }}
            {%- endfor %}
        from bars_before
    ),
{%- else -%}
    bars as (
        select * from bars_of_window
    ),
{%- endif %}

{{ indicators('bars') }}

-- On DuckDB the rows are in order, one series after the other: a query for one series and period then reads few row
-- groups.
select
    symbol,
    {{ interval_column() }},
    open_time,
    {{ bar_measures() | join(',\n    ') }},
    {{ indicator_columns() | join(',\n    ') }},
    {{ part('hour', 'open_time') }} as hour,
    {{ part('isodow', 'open_time') }} as day_of_week,
    {{ part('month', 'open_time') }} as month,
    source,
    ingested_at
from indicators
where
    {%- for interval in starts %}
        ({{ interval_column() }} = '{{ interval }}' and open_time >= {{ window_start(interval) }})
        {{- " or " if not loop.last }}
    {%- endfor %}
