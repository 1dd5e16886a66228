{#
    dbt asks with the name in quotes, and dbt-duckdb compares it with names that have none: no schema is ever found, and
    each run creates all that it needs again.
#}
{% macro duckdb__list_schemas(database) %}
    {% set found %}
        select schema_name
        from duckdb_schemas()
        where database_name = '{{ database | replace('"', '') }}'
    {% endset %}
    {{ return(run_query(found)) }}
{% endmacro %}
