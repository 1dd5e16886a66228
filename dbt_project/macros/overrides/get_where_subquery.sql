{#
    Tests with `where: __window__` look at the run's window only, so that their cost does not grow with history.
    `where` itself cannot call macros, hence the placeholder.
#}
{% macro get_where_subquery(relation) -%}
    {%- set where = config.get('where', '') -%}
    {%- if where -%}
        (select * from {{ relation }} where {{ where | replace('__window__', in_window('open_time')) }}) as dbt_subquery
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{%- endmacro %}
