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
{%- set indicator_names = [
    'sma_20', 'ema_50', 'rsi_14', 'macd', 'macd_signal', 'bb_upper', 'bb_middle', 'bb_lower'
] -%}

with bars_of_window as (
    select
        symbol,
        {{ interval_column() }},
        open_time,
        {{ measures | join(',\n        ') }},
        source,
        ingested_at
    from {{ ref('int_klines') }}
),

{% if is_incremental() -%}
    -- What the averages remember lies before the window, in bars, not in days: a series may have holes.
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
        select
            symbol,
            {{ interval_column() }},
            open_time,
            {{ measures | join(',\n            ') }},
            source,
            ingested_at
        from {{ this }}
        where open_time >= {{ window_end() }}
        qualify row_number() over (partition by symbol, {{ interval_column() }} order by open_time) <= {{ memory_bars() }}
    ),

    bars_to_write as (
        select * from bars_of_window
        union all
        select * from bars_after
    ),

    closes as (
        select symbol, {{ interval_column() }}, open_time, close from bars_before
        union all
        select symbol, {{ interval_column() }}, open_time, close from bars_to_write
    ),
{%- else -%}
    bars_to_write as (
        select * from bars_of_window
    ),

    closes as (
        select symbol, {{ interval_column() }}, open_time, close from bars_to_write
    ),
{%- endif %}

{{ indicators('closes') }}

select
    bars.symbol,
    bars.{{ interval_column() }},
    bars.open_time,
    {%- for measure in measures %}
        bars.{{ measure }},
    {%- endfor %}
    {%- for indicator in indicator_names %}
        indicators.{{ indicator }},
    {%- endfor %}
    {{ part('hour', 'bars.open_time') }} as hour,
    {{ part('isodow', 'bars.open_time') }} as day_of_week,
    {{ part('month', 'bars.open_time') }} as month,
    bars.source,
    bars.ingested_at
from bars_to_write as bars
inner join indicators
    on
        bars.symbol = indicators.symbol
        and bars.{{ interval_column() }} = indicators.{{ interval_column() }}
        and bars.open_time = indicators.open_time
-- One series after the other: a query for one series and period then reads few row groups.
order by bars.symbol, bars.{{ interval_column() }}, bars.open_time
