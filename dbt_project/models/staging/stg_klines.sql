{#
    One row per series and bar. Where sources overlap the order of trust is archive, REST, stream, then the latest.

    Nearly no bar has several rows, and ranking sorts: so only those bars are ranked, and all others pass as they are.
#}
{%- set columns = [
    'symbol', interval_column(), 'open_time', 'close_time', 'open', 'high', 'low', 'close', 'volume', 'quote_volume',
    'trades', 'taker_buy_base_volume', 'taker_buy_quote_volume', 'source', 'ingested_at'
] -%}

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
qualify
    row_number() over (
        partition by klines.symbol, klines.{{ interval_column() }}, klines.open_time
        order by
            case klines.source
                when 'archive_monthly' then 1 when 'archive_daily' then 2 when 'rest' then 3 else 4
            end,
            klines.ingested_at desc
    ) = 1
