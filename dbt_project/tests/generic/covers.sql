{#
    A dimension has every value that the facts in `to` have: the relationships test from the side of the dimension,
    because the dimension is what is built last. `expression` names a macro over open_time where the facts have no
    column of that name.
#}
{% test covers(model, to, column, expression=none) %}
    {%- set fact = utc_date('open_time') if expression == 'utc_date' else adapter.quote(column) -%}
    select distinct {{ fact }} as missing
    from {{ to }}
    where {{ in_window('open_time') }} and {{ fact }} not in (select {{ adapter.quote(column) }} from {{ model }})
{% endtest %}
