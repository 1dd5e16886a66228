{# What DuckDB and BigQuery write differently about numbers. #}

{# Integer division of non-negative integers. #}
{% macro int_div(dividend, divisor) %}{{ adapter.dispatch('int_div')(dividend, divisor) }}{% endmacro %}
{% macro default__int_div(dividend, divisor) %}div({{ dividend }}, {{ divisor }}){% endmacro %}
{% macro duckdb__int_div(dividend, divisor) %}(({{ dividend }}) // {{ divisor }}){% endmacro %}

{# The type of double precision numbers, and a literal of it that keeps all 17 digits. #}
{% macro double_type() %}{{ adapter.dispatch('double_type')() }}{% endmacro %}
{% macro default__double_type() %}float64{% endmacro %}
{% macro duckdb__double_type() %}double{% endmacro %}

{# The type of exact decimals. (A contract wants digits for NUMERIC, which BigQuery does not take in casts.) #}
{% macro decimal_type() %}{{ adapter.dispatch('decimal_type')() }}{% endmacro %}
{% macro default__decimal_type() %}bignumeric{% endmacro %}
{% macro duckdb__decimal_type() %}decimal(28, 8){% endmacro %}

{% macro double(number) %}{{ '%.17e' | format(number) }}{% endmacro %}
