{#
    All indicators on a ramp, close = 100 + i, worked by hand: an average of n bars lags (n - 1) / 2 bars behind, and so
    does an exponential average that is seeded with it. So EMA 50 = 100 + i - 24.5, MACD = (i - 5.5) - (i - 12.5) = 7 and
    so is its signal, RSI = 100, and the population deviation of 20 numbers in a row is sqrt((20 * 20 - 1) / 12). The
    ramp is longer than twice what the averages remember.
#}
{{ config(tags=['unit']) }}

with ramp as (
    select
        'ABC' as symbol,
        '1d' as {{ interval_column() }},
        {{ from_micros('i * 86400000000') }} as open_time,
        cast(100 + i as {{ double_type() }}) as close,
        i
    from (
        select row_number() over (order by hundreds.i, units.i) - 1 as i
        from ({% for i in range(22) %}select {{ i }} as i{{ " union all " if not loop.last }}{% endfor %}) as hundreds
        cross join ({% for i in range(100) %}select {{ i }} as i{{ " union all " if not loop.last }}{% endfor %}) as units
    ) as numbers
),

{{ indicators('ramp') }},

expected as (
    select
        open_time,
        case when i >= 19 then 100 + i - 9.5 end as sma_20,
        case when i >= 49 then 100 + i - 24.5 end as ema_50,
        case when i >= 14 then 100 end as rsi_14,
        case when i >= 33 then 7 end as macd,
        case when i >= 33 then 7 end as macd_signal,
        case when i >= 19 then 100 + i - 9.5 + 2 * sqrt(33.25) end as bb_upper,
        case when i >= 19 then 100 + i - 9.5 end as bb_middle,
        case when i >= 19 then 100 + i - 9.5 - 2 * sqrt(33.25) end as bb_lower
    from ramp
)

select indicators.*
from indicators
inner join expected on indicators.open_time = expected.open_time
where
    {% for name in ['sma_20', 'ema_50', 'rsi_14', 'macd', 'macd_signal', 'bb_upper', 'bb_middle', 'bb_lower'] %}
        (indicators.{{ name }} is null) != (expected.{{ name }} is null)
        or abs(indicators.{{ name }} - expected.{{ name }}) > 1e-9
        {{ "or" if not loop.last }}
    {% endfor %}
