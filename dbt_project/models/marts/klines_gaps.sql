{# Every gap with the documented outage that shares most time with it, if one does. #}
with labelled as (
    select
        gaps.symbol,
        gaps.resumed_at,
        max_by(
            outages.outage,
            least({{ to_micros('gaps.resumed_at') }}, {{ to_micros('outages.resumed_at') }})
            - greatest({{ to_micros('gaps.first_missing_open_time') }}, {{ to_micros('outages.halted_at') }})
        ) as outage
    from {{ ref('int_klines_gaps') }} as gaps
    inner join {{ ref('exchange_outages') }} as outages
        on
            (outages.scope = 'exchange' or gaps.symbol = outages.scope)
            and gaps.first_missing_open_time < outages.resumed_at
            and gaps.resumed_at > outages.halted_at
    group by gaps.symbol, gaps.resumed_at
)

select
    gaps.symbol,
    gaps.{{ interval_column() }},
    gaps.first_missing_open_time,
    gaps.last_missing_open_time,
    gaps.missing_bars,
    gaps.last_close_time,
    gaps.resumed_at,
    gaps.verdict,
    labelled.outage,
    outages.title as outage_title
from {{ ref('int_klines_gaps') }} as gaps
left join labelled on gaps.symbol = labelled.symbol and gaps.resumed_at = labelled.resumed_at
left join {{ ref('exchange_outages') }} as outages on labelled.outage = outages.outage
