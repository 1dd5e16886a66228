{# No two rows have the same values in these columns, and none of them is NULL. #}
{% test unique_combination(model, columns) %}
    {%- set quoted = [] -%}
    {%- for column in columns %}{% do quoted.append(adapter.quote(column)) %}{% endfor %}
    select
        {{ quoted | join(', ') }},
        count(*) as occurrences
    from {{ model }}
    group by {{ quoted | join(', ') }}
    having count(*) > 1 or {{ quoted | join(' is null or ') }} is null
{% endtest %}
