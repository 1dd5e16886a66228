{{ config(**kept_by_window(partition=('open_time', 'month'))) }}

select
    symbol,
    {{ interval_column() }},
    open_time,
    field,
    kept_source,
    kept_value,
    other_source,
    other_value,
    found_at
from {{ source('crypto_raw', 'klines_differences') }}
where {{ interval_column() }} = '{{ var("base_interval") }}' and {{ in_window('open_time') }}
