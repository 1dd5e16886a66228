{# What DuckDB and BigQuery write differently about instants. #}

{# An instant from text such as 2024-07-01 00:00:00+00. #}
{% macro instant(text) %}{{ adapter.dispatch('instant')(text) }}{% endmacro %}
{% macro default__instant(text) %}timestamp '{{ text }}'{% endmacro %}
{% macro duckdb__instant(text) %}timestamptz '{{ text }}'{% endmacro %}

{# Microseconds since 1970 of an instant, and back. #}
{% macro to_micros(column) %}{{ adapter.dispatch('to_micros')(column) }}{% endmacro %}
{% macro default__to_micros(column) %}unix_micros({{ column }}){% endmacro %}
{% macro duckdb__to_micros(column) %}epoch_us({{ column }}){% endmacro %}

{% macro from_micros(micros) %}{{ adapter.dispatch('from_micros')(micros) }}{% endmacro %}
{% macro default__from_micros(micros) %}timestamp_micros({{ micros }}){% endmacro %}
{% macro duckdb__from_micros(micros) %}make_timestamptz({{ micros }}){% endmacro %}

{# Part of an instant or date: hour 0-23, isodow 1 (Monday) to 7, month 1-12, ... #}
{% macro part(name, column) %}{{ adapter.dispatch('part')(name, column) }}{% endmacro %}
{% macro default__part(name, column) -%}
    {%- if name == 'isodow' -%}
        mod(extract(dayofweek from {{ column }}) + 5, 7) + 1
    {%- else -%}
        extract({{ name }} from {{ column }})
    {%- endif -%}
{%- endmacro %}
{% macro duckdb__part(name, column) -%}
    cast(extract({{ 'week' if name == 'isoweek' else name }} from {{ plain_timestamp(column) }}) as bigint)
{%- endmacro %}

{# An instant or date as a timestamp in UTC: of an instant itself DuckDB asks a calendar library, ten times slower. #}
{% macro plain_timestamp(column) %}make_timestamp(epoch_us({{ column }})){% endmacro %}

{# The UTC date of an instant. #}
{% macro utc_date(column) %}{{ adapter.dispatch('utc_date')(column) }}{% endmacro %}
{% macro default__utc_date(column) %}date({{ column }}){% endmacro %}
{% macro duckdb__utc_date(column) %}cast({{ plain_timestamp(column) }} as date){% endmacro %}

{# A table of all dates from `first` to `last`, both included, in a column date_day. #}
{% macro date_series(first, last) %}{{ adapter.dispatch('date_series')(first, last) }}{% endmacro %}
{% macro default__date_series(first, last) -%}
    select date_day from unnest(generate_date_array({{ first }}, {{ last }})) as date_day
{%- endmacro %}
{% macro duckdb__date_series(first, last) -%}
    select cast(unnest(generate_series({{ first }}, {{ last }}, interval 1 day)) as date) as date_day
{%- endmacro %}
