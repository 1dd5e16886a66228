{# What a bar measures, in the order of the tables. #}
{% macro bar_measures() -%}
    {{- return([
        'close_time', 'open', 'high', 'low', 'close', 'volume', 'quote_volume', 'trades', 'taker_buy_base_volume',
        'taker_buy_quote_volume'
    ]) -}}
{%- endmacro %}

{# What the macro `indicators` adds to it. #}
{% macro indicator_columns() -%}
    {{- return(['sma_20', 'ema_50', 'rsi_14', 'macd', 'macd_signal', 'bb_upper', 'bb_middle', 'bb_lower']) -}}
{%- endmacro %}

{# The columns of a bar before it has indicators. #}
{% macro kline_columns() -%}
    {{- return(['symbol', interval_column(), 'open_time'] + bar_measures() + ['source', 'ingested_at']) -}}
{%- endmacro %}

{# The measures of `bars`, whose prices and volumes are decimals, as the marts have them: doubles. #}
{% macro measures_of_marts(bars) -%}
    {%- for measure in bar_measures() %}
        {%- if measure == 'close_time' %}
            {{ bars }}.close_time
        {%- elif measure == 'trades' %}
            cast({{ bars }}.trades as bigint) as trades
        {%- else %}
            cast({{ bars }}.{{ measure }} as {{ double_type() }}) as {{ measure }}
        {%- endif %}
        {{- "," if not loop.last }}
    {%- endfor %}
{%- endmacro %}
