{# dbt's own macro of this name leaves the names as they are, and `interval` is a reserved word of BigQuery. #}
{% macro cluster_by(raw_cluster_by) %}
    {%- if raw_cluster_by is not none -%}
    cluster by {% for column in raw_cluster_by %}{{ adapter.quote(column) }}{{ ", " if not loop.last }}{% endfor %}
    {%- endif -%}
{% endmacro %}
