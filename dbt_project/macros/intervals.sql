{# Lengths of the exchange's intervals up to a day, in seconds, and of one of them in microseconds. #}
{% macro interval_seconds() %}
    {{- return({
        '1s': 1, '1m': 60, '3m': 180, '5m': 300, '15m': 900, '30m': 1800, '1h': 3600, '2h': 7200, '4h': 14400,
        '6h': 21600, '8h': 28800, '12h': 43200, '1d': 86400
    }) -}}
{% endmacro %}

{% macro interval_micros(interval) %}
    {%- set seconds = interval_seconds() -%}
    {%- if interval not in seconds -%}
        {{ exceptions.raise_compiler_error("The warehouse starts from an interval of at most 1d, not from " ~ interval) }}
    {%- endif -%}
    {{- return(seconds[interval] * 1000000) -}}
{% endmacro %}

{# The derived intervals that can be rolled up exactly from the base interval, shortest first. #}
{% macro rollup_intervals() %}
    {%- set seconds = interval_seconds() -%}
    {%- set base = interval_micros(var('base_interval')) // 1000000 -%}
    {%- set found = [] -%}
    {%- for interval in ['15m', '1h', '4h', '1d'] -%}
        {%- if seconds[interval] > base and seconds[interval] % base == 0 -%}
            {%- do found.append(interval) -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(found) -}}
{% endmacro %}
