{#
    Common table expressions, the last one called `name`: the bars of the run's window, the base interval as landed, and
    each longer one of the `wanted` intervals rolled up from the one before it, each in its own window. Sums run over
    decimals, so they are exact. A derived bar appears when it is closed: when what has landed covers all of its time.

    (Not an ephemeral model: to put one into another model's query dbt parses the whole query, half a second each time.)
#}
{% macro bars_of_window(name, wanted) -%}
{%- set measures = [
    'volume', 'quote_volume', 'trades', 'taker_buy_base_volume', 'taker_buy_quote_volume'
] -%}
{%- set levels = [] -%}
{%- for interval in [var('base_interval')] + rollup_intervals() if interval in wanted -%}
    {%- do levels.append(interval) -%}
{%- endfor -%}

{{ cte_name('bars', levels[0]) }} as (
    {{ landed_klines(
        interval_column() ~ " = '" ~ levels[0] ~ "' and " ~ in_window('open_time', levels[-1])
        ~ " and " ~ in_scope('symbol')
    ) }}
),

coverage as (
    select
        symbol,
        max(covered_until) as covered_until
    from {{ source('crypto_raw', 'klines_coverage') }}
    where {{ interval_column() }} = '{{ levels[0] }}'
    group by symbol
),

{% for interval in levels[1:] %}
    {%- set micros = interval_micros(interval) %}
    {{ cte_name('buckets', interval) }} as (
        select
            *,
            {{ int_div(to_micros('open_time'), micros) }} as bucket
        from {{ cte_name('bars', levels[loop.index0]) }}
    ),

    {{ cte_name('bars', interval) }} as (
        select
            symbol,
            '{{ interval }}' as {{ interval_column() }},
            {{ from_micros('bucket * ' ~ micros) }} as open_time,
            max(close_time) as close_time,
            min_by(open, open_time) as open,
            max(high) as high,
            min(low) as low,
            max_by(close, open_time) as close,
            {%- for measure in measures %}
                sum({{ measure }}) as {{ measure }},
            {%- endfor %}
            -- In the order of the alphabet the last source is the least trusted one.
            max(source) as source,
            max(ingested_at) as ingested_at
        from {{ cte_name('buckets', interval) }}
        group by symbol, bucket
    ),
{% endfor %}

all_bars as (
    {%- for interval in levels %}
        {%- if interval == levels[0] %}
            select * from {{ cte_name('bars', interval) }}
            where {{ in_window('open_time') }}
        {%- else %}
            union all
            select bars.*
            from {{ cte_name('bars', interval) }} as bars
            inner join coverage on bars.symbol = coverage.symbol
            where
                {{ in_window('bars.open_time', interval) }}
                and {{ to_micros('bars.open_time') }} + {{ interval_micros(interval) }}
                <= {{ to_micros('coverage.covered_until') }}
        {%- endif %}
    {%- endfor %}
),

{{ name }} as (
    select
        symbol,
        {{ interval_column() }},
        open_time,
        {{- measures_of_marts('all_bars') }},
        source,
        ingested_at
    from all_bars
)
{%- endmacro %}
