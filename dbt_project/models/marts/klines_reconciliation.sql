{{
    config(
        materialized='incremental',
        incremental_strategy='replace_window',
        on_schema_change='fail',
    )
}}

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
