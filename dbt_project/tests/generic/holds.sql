{# A rule that every row keeps; a row for which it is NULL breaks it too. #}
{% test holds(model, rule) %}
    select *
    from {{ model }}
    where not coalesce({{ rule }}, false)
{% endtest %}
