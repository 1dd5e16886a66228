{#
    One row per series and bar, the most trusted one, then the latest (see landed_klines).

    On DuckDB nearly no bar has several rows, and ranking sorts: so only those bars are ranked, and all others pass as
    they are.
#}
{%- set columns = kline_columns() -%}

{% if target.type == 'bigquery' -%}
{{ landed_klines('open_time >= ' ~ beginning()) }}
{%- else -%}
with contested as (
    select
        symbol,
        {{ interval_column() }},
        open_time
    from {{ source('crypto_raw', 'klines') }}
    group by symbol, {{ interval_column() }}, open_time
    having count(*) > 1
)

select klines.{{ columns | join(', klines.') }}
from {{ source('crypto_raw', 'klines') }} as klines
left join contested
    on
        klines.symbol = contested.symbol
        and klines.{{ interval_column() }} = contested.{{ interval_column() }}
        and klines.open_time = contested.open_time
where contested.open_time is null

union all

select klines.{{ columns | join(', klines.') }}
from {{ source('crypto_raw', 'klines') }} as klines
inner join contested
    on
        klines.symbol = contested.symbol
        and klines.{{ interval_column() }} = contested.{{ interval_column() }}
        and klines.open_time = contested.open_time
qualify row_number() over ({{ by_trust('klines.') }}) = 1
{%- endif %}
