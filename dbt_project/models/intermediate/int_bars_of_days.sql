{{
    config(**kept_by_window(
        partition=('day_start', 'month'), meta={'time_column': 'day_start'}
    ))
}}

{#
    A run makes the days that its window touches, whole. Where there is no table yet, all of them: a window alone would
    leave out the days of bars that are there already.
#}
{%- set micros = interval_micros('1d') -%}

with bars as (
    select
        symbol,
        open_time,
        close_time,
        {{ from_micros(int_div(to_micros('open_time'), micros) ~ ' * ' ~ micros) }} as day_start
    from {{ ref('market_data_unified') }}
    where
        {{ interval_column() }} = '{{ var("base_interval") }}'
        {%- if is_incremental() %}
            and {{ in_window('open_time', '1d') }}
            and {{ in_scope('symbol') }}
        {%- else %}
            and open_time >= {{ beginning() }}
        {%- endif %}
)

select
    symbol,
    '1d' as {{ interval_column() }},
    day_start,
    min(open_time) as first_open_time,
    max(open_time) as last_open_time,
    max(close_time) as last_close_time,
    count(*) as bars
from bars
group by symbol, day_start
