{# The column `interval`: a reserved word on BigQuery, so it is always quoted in the engine's own way. #}
{% macro interval_column() %}{{ adapter.quote('interval') }}{% endmacro %}

{# A name for a common table expression of one interval, such as bars_15m. #}
{% macro cte_name(prefix, interval) %}{{ prefix }}_{{ interval }}{% endmacro %}

{# All columns but these. #}
{% macro all_but(columns) %}{{ adapter.dispatch('all_but')(columns) }}{% endmacro %}
{% macro default__all_but(columns) %}* except ({{ columns | join(', ') }}){% endmacro %}
{% macro duckdb__all_but(columns) %}* exclude ({{ columns | join(', ') }}){% endmacro %}
