{#
    A dimension has every value that the days in `to` have: the relationships test from the side of the dimension,
    because the dimension is what is built last. `expression` names a macro over day_start where the days have no column
    of that name.
#}
{% test covers(model, to, column, expression=none) %}
    {%- set fact = utc_date('day_start') if expression == 'utc_date' else adapter.quote(column) -%}
    select distinct {{ fact }} as missing
    from {{ to }}
    where {{ in_window('day_start', '1d') }} and {{ fact }} not in (select {{ adapter.quote(column) }} from {{ model }})
{% endtest %}
