{#
    On each UTC day the derived bars hold what the bars of the base interval hold: highs, lows, trades exactly, volumes
    up to the rounding of sums of doubles. Days of which a derived interval has not closed all bars are left out.
#}
{% test rollups_add_up(model) %}
    {%- set base = var('base_interval') -%}
    with days as (
        select
            symbol,
            {{ interval_column() }},
            {{ utc_date('open_time') }} as date_day,
            max(high) as high,
            min(low) as low,
            sum(trades) as trades,
            sum(volume) as volume,
            sum(quote_volume) as quote_volume,
            max(close_time) as close_time
        from {{ model }}
        group by 1, 2, 3
    )

    select derived.*
    from days as derived
    inner join days as base
        on derived.symbol = base.symbol and derived.date_day = base.date_day
    where
        base.{{ interval_column() }} = '{{ base }}'
        and derived.{{ interval_column() }} != '{{ base }}'
        and derived.close_time = base.close_time
        and not (
            derived.high = base.high
            and derived.low = base.low
            and derived.trades = base.trades
            and abs(derived.volume - base.volume) <= 1e-9 * base.volume
            and abs(derived.quote_volume - base.quote_volume) <= 1e-9 * base.quote_volume
        )
{% endtest %}
