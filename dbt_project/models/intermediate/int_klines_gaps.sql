{{
    config(**kept_by_window(
        partition=('resumed_at', 'month'), meta={'time_column': 'resumed_at', 'begin_column': 'first_missing_open_time'}
    ))
}}

{#
    A gap belongs to the bar that ends it, so that a run over a window finds it whole however far back it began. The
    first bar after the window is looked at again, because its gap may have been filled from the left.
#}
{%- set micros = interval_micros(var('base_interval')) -%}

with bars as (
    select
        symbol,
        {{ interval_column() }},
        open_time,
        close_time
    from {{ ref('market_data_unified') }}
    where
        {{ interval_column() }} = '{{ var("base_interval") }}'
        and open_time >= {{ increment_starts([var('base_interval')])[var('base_interval')] }}
),

edges as (
    select
        symbol,
        {{ interval_column() }},
        max(open_time) as open_time,
        max_by(close_time, open_time) as close_time
    from bars
    where open_time < {{ window_start() }}
    group by symbol, {{ interval_column() }}
    union all
    select
        symbol,
        {{ interval_column() }},
        min(open_time) as open_time,
        min_by(close_time, open_time) as close_time
    from bars
    where open_time >= {{ window_end() }}
    group by symbol, {{ interval_column() }}
),

bars_of_window as (
    select * from bars
    where {{ in_window('open_time') }}
    union all
    select * from edges
),

steps as (
    select
        symbol,
        {{ interval_column() }},
        open_time,
        {{ int_div(to_micros('open_time'), micros) }} as place,
        lag(close_time) over series as last_close_time,
        {{ int_div(to_micros('lag(open_time) over series'), micros) }} as last_place
    from bars_of_window
    window series as (partition by symbol, {{ interval_column() }} order by open_time)
),

gaps as (
    select
        symbol,
        {{ interval_column() }},
        {{ from_micros('(last_place + 1) * ' ~ micros) }} as first_missing_open_time,
        {{ from_micros('(place - 1) * ' ~ micros) }} as last_missing_open_time,
        {{ from_micros('place * ' ~ micros) }} as gap_end,
        place - last_place - 1 as missing_bars,
        last_close_time,
        open_time as resumed_at
    from steps
    where place - last_place > 1 and open_time >= {{ window_start() }}
),

-- What REST was asked for and did not have. Answers about a series do not overlap.
asked as (
    select
        gaps.symbol,
        gaps.resumed_at,
        sum(
            least({{ to_micros('gaps.gap_end') }}, {{ to_micros('coverage.covered_until') }})
            - greatest({{ to_micros('gaps.first_missing_open_time') }}, {{ to_micros('coverage.covered_from') }})
        ) as asked_micros
    from gaps
    inner join {{ source('crypto_raw', 'klines_coverage') }} as coverage
        on
            gaps.symbol = coverage.symbol
            and gaps.{{ interval_column() }} = coverage.{{ interval_column() }}
            and gaps.first_missing_open_time < coverage.covered_until
            and gaps.gap_end > coverage.covered_from
    where coverage.source = 'rest'
    group by gaps.symbol, gaps.resumed_at
)

select
    gaps.symbol,
    gaps.{{ interval_column() }},
    gaps.first_missing_open_time,
    gaps.last_missing_open_time,
    cast(gaps.missing_bars as bigint) as missing_bars,
    gaps.last_close_time,
    gaps.resumed_at,
    case
        when asked.asked_micros >= gaps.missing_bars * {{ micros }} then 'exchange'
        when {{ to_micros('gaps.gap_end') }} > {{ to_micros('current_timestamp') }} - {{ 10 * 60 * 1000000 }} then 'late'
        else 'missing'
    end as verdict
from gaps
left join asked on gaps.symbol = asked.symbol and gaps.resumed_at = asked.resumed_at
