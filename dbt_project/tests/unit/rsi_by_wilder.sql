{#
    RSI worked by hand. Fourteen changes, seven of +2 and seven of -1: average gain 1, average loss 0.5, RSI 100 / 1.5.
    Then +13: gain (13 * 1 + 13) / 14 = 26 / 14, loss 13 * 0.5 / 14 = 6.5 / 14, RSI 100 * 26 / 32.5 = 80. Then -14: gain
    13 * 26 / 14 / 14 = 338 / 196, loss (13 * 6.5 / 14 + 14) / 14 = 280.5 / 196, RSI 100 * 338 / 618.5.
#}
{{ config(tags=['unit']) }}

with closes as (
    {%- set prices = [100, 102, 101, 103, 102, 104, 103, 105, 104, 106, 105, 107, 106, 108, 107, 120, 106] -%}
    {%- for price in prices %}
        select
            'ABC' as symbol,
            '1d' as {{ interval_column() }},
            {{ from_micros(loop.index0 * 86400000000) }} as open_time,
            {{ double(price) }} as close
        {{ "union all" if not loop.last }}
    {%- endfor %}
),

{{ indicators('closes') }},

expected as (
    select
        open_time,
        case {{ int_div(to_micros('open_time'), 86400000000) }}
            when 14 then 100 / {{ double(1.5) }}
            when 15 then {{ double(80) }}
            when 16 then 33800 / {{ double(618.5) }}
        end as rsi_14
    from closes
)

select indicators.*
from indicators
inner join expected on indicators.open_time = expected.open_time
where
    (indicators.rsi_14 is null) != (expected.rsi_14 is null)
    or abs(indicators.rsi_14 - expected.rsi_14) > 1e-9
