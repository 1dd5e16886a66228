{# The column `interval`: a reserved word on BigQuery, so it is always quoted in the engine's own way. #}
{% macro interval_column() %}{{ adapter.quote('interval') }}{% endmacro %}

{# A name for a common table expression of one interval, such as bars_15m. #}
{% macro cte_name(prefix, interval) %}{{ prefix }}_{{ interval }}{% endmacro %}
