-- The linter takes the `rows` of a window without order (in numbered_bars) for a name, and cannot parse on.
-- sqlfluff:ignore:parsing
{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='fail',
        meta={'published_by_month': true},
        post_hook="{{ note_full_build() }}",
    )
}}

{%- set measures = [
    'close_time', 'open', 'high', 'low', 'close', 'volume', 'quote_volume', 'trades', 'taker_buy_base_volume',
    'taker_buy_quote_volume'
] -%}
{%- set columns = ['symbol', interval_column(), 'open_time'] + measures + ['source', 'ingested_at'] -%}
{%- set indicator_names = [
    'sma_20', 'ema_50', 'rsi_14', 'macd', 'macd_signal', 'bb_upper', 'bb_middle', 'bb_lower'
] -%}

with bars_of_window as (
    select {{ columns | join(', ') }}
    from {{ ref('int_klines') }}
),

{% if is_incremental() -%}
    -- What the averages remember lies before the window, in bars, not in days: a series may have holes. Only their closes
    -- are needed.
    bars_before as (
        select
            symbol,
            {{ interval_column() }},
            open_time,
            close
        from {{ this }}
        where open_time < {{ window_start() }}
        qualify
            row_number() over (partition by symbol, {{ interval_column() }} order by open_time desc) <= {{ memory_bars() }}
    ),

    -- And what remembers the window lies after it: these bars keep their prices and get their indicators anew.
    bars_after as (
        select {{ columns | join(', ') }}
        from {{ this }}
        where open_time >= {{ window_end() }}
        qualify row_number() over (partition by symbol, {{ interval_column() }} order by open_time) <= {{ memory_bars() }}
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
    {{ measures | join(',\n    ') }},
    {{ indicator_names | join(',\n    ') }},
    {{ part('hour', 'open_time') }} as hour,
    {{ part('isodow', 'open_time') }} as day_of_week,
    {{ part('month', 'open_time') }} as month,
    source,
    ingested_at
from indicators
where open_time >= {{ window_start() }}
