with bars as (
    select
        symbol,
        min(open_time) as first_open_time,
        max(open_time) as last_open_time,
        max(close_time) as last_close_time,
        count(*) as bars
    from {{ ref('market_data_unified') }}
    where {{ interval_column() }} = '{{ var("base_interval") }}'
    group by symbol
),

-- A symbol is base and quote asset written together: the longest known quote asset that it ends with.
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
    substr(bars.symbol, 1, length(bars.symbol) - length(quotes.quote_asset)) as base_asset,
    quotes.quote_asset,
    '{{ var("base_interval") }}' as base_interval,
    bars.first_open_time,
    bars.last_open_time,
    bars.last_close_time,
    bars.bars
from bars
left join quotes on bars.symbol = quotes.symbol
