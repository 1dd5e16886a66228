with bars as (
    select
        symbol,
        min(first_open_time) as first_open_time,
        max(last_open_time) as last_open_time,
        max(last_close_time) as last_close_time,
        sum(bars) as bars
    from {{ ref('int_bars_of_days') }}
    group by symbol
),

listed as (
    select
        symbol,
        status,
        base_asset,
        quote_asset,
        tick_size,
        lot_size,
        fetched_at
    from {{ source('crypto_raw', 'symbols') }}
    qualify row_number() over (partition by symbol order by fetched_at desc) = 1
),

-- Until the exchange was asked: a symbol is base and quote asset written together, so the longest known quote asset
-- that it ends with.
quotes as (
    select
        bars.symbol,
        max_by(quote_assets.quote_asset, length(quote_assets.quote_asset)) as quote_asset
    from bars
    inner join {{ ref('quote_assets') }} as quote_assets
        on
            substr(bars.symbol, length(bars.symbol) - length(quote_assets.quote_asset) + 1) = quote_assets.quote_asset
            and length(bars.symbol) > length(quote_assets.quote_asset)
    group by bars.symbol
)

select
    bars.symbol,
    coalesce(
        listed.base_asset, substr(bars.symbol, 1, length(bars.symbol) - length(quotes.quote_asset))
    ) as base_asset,
    coalesce(listed.quote_asset, quotes.quote_asset) as quote_asset,
    listed.status,
    cast(listed.tick_size as {{ decimal_type() }}) as tick_size,
    cast(listed.lot_size as {{ decimal_type() }}) as lot_size,
    renames.new_symbol as renamed_to,
    former.old_symbol as renamed_from,
    '{{ var("base_interval") }}' as base_interval,
    bars.first_open_time,
    bars.last_open_time,
    bars.last_close_time,
    cast(bars.bars as bigint) as bars
from bars
left join listed on bars.symbol = listed.symbol
left join quotes on bars.symbol = quotes.symbol
left join {{ ref('symbol_renames') }} as renames on bars.symbol = renames.old_symbol
left join {{ ref('symbol_renames') }} as former on bars.symbol = former.new_symbol
