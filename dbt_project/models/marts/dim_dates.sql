with extent as (
    select
        min({{ utc_date('day_start') }}) as first_day,
        max({{ utc_date('day_start') }}) as last_day
    from {{ ref('int_bars_of_days') }}
),

days as (
    {{ date_series('(select first_day from extent)', '(select last_day from extent)') }}
)

select
    date_day,
    {{ part('year', 'date_day') }} as year,
    {{ part('quarter', 'date_day') }} as quarter,
    {{ part('month', 'date_day') }} as month,
    {{ part('day', 'date_day') }} as day_of_month,
    {{ part('isoweek', 'date_day') }} as iso_week,
    {{ part('isodow', 'date_day') }} as day_of_week,
    {{ part('isodow', 'date_day') }} >= 6 as is_weekend
from days
