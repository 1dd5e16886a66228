{#
    One row per series and bar. Where sources overlap the order of trust is archive, REST, stream, then the latest.
#}
select
    symbol,
    {{ interval_column() }},
    open_time,
    close_time,
    open,
    high,
    low,
    close,
    volume,
    quote_volume,
    trades,
    taker_buy_base_volume,
    taker_buy_quote_volume,
    source,
    ingested_at
from {{ source('crypto_raw', 'klines') }}
qualify
    row_number() over (
        partition by symbol, {{ interval_column() }}, open_time
        order by
            case source
                when 'archive_monthly' then 1 when 'archive_daily' then 2 when 'rest' then 3 else 4
            end,
            ingested_at desc
    ) = 1
