-- The linter takes the `rows` of a window without order (in numbered_bars) for a name, and cannot parse on.
-- sqlfluff:ignore:parsing
{{ config(materialized='view', contract={'enforced': false}) }}

{#
    All bars, also those that have landed since the last run: their indicators are computed when they are asked for, by
    the same macro over the bars that the averages remember. So a bar is here as soon as it was appended; longer intervals
    follow with the next run, which also renews where this view begins to read.

    A symbol of which too few bars lie in reach to be exact (after a long halt) is as in market_data_unified until then.
    On DuckDB readers cannot ask the warehouse: the streaming run asks this query of a copy of the last bars in memory, and
    serves what is new (warehouse/fresh_bars.py).
#}
{%- set base = var('base_interval') -%}
{%- set start = live_start() -%}
{%- set measures = bar_measures() -%}
{%- set bar_indicators = indicator_columns() -%}

with known as (
    select
        symbol,
        {{ interval_column() }},
        open_time,
        {{ measures | join(',\n        ') }},
        source,
        ingested_at
    from {{ ref('market_data_unified') }}
    where {{ interval_column() }} = '{{ base }}' and open_time >= {{ start }}
),

began as (
    select
        symbol,
        min(covered_from) as began_at
    from {{ source('crypto_raw', 'klines_coverage') }}
    where {{ interval_column() }} = '{{ base }}'
    group by symbol
),

newest as (
    select
        known.symbol,
        max(known.open_time) as open_time
    from known
    inner join began on known.symbol = began.symbol
    group by known.symbol
    having count(*) >= {{ memory_bars() }} or min(began.began_at) >= {{ start }}
),

landed as (
    {{ landed_klines(interval_column() ~ " = '" ~ base ~ "' and open_time >= " ~ start) }}
),

bars as (
    select * from known
    union all
    select
        landed.symbol,
        landed.{{ interval_column() }},
        landed.open_time,
        {{- measures_of_marts('landed') }},
        landed.source,
        landed.ingested_at
    from landed
    inner join newest on landed.symbol = newest.symbol
    where landed.open_time > newest.open_time
),

{{ indicators('bars') }}

select
    symbol,
    {{ interval_column() }},
    open_time,
    {{ measures | join(',\n    ') }},
    {{ bar_indicators | join(',\n    ') }},
    hour,
    day_of_week,
    month,
    source,
    ingested_at
from {{ ref('market_data_unified') }}

union all

select
    indicators.symbol,
    indicators.{{ interval_column() }},
    indicators.open_time,
    indicators.{{ measures | join(',\n    indicators.') }},
    indicators.{{ bar_indicators | join(',\n    indicators.') }},
    {{ part('hour', 'indicators.open_time') }} as hour,
    {{ part('isodow', 'indicators.open_time') }} as day_of_week,
    {{ part('month', 'indicators.open_time') }} as month,
    indicators.source,
    indicators.ingested_at
from indicators
inner join newest on indicators.symbol = newest.symbol
where indicators.open_time > newest.open_time
