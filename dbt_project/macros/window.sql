{#
    The run's window. It is applied whether or not the table exists yet: a filter inside is_incremental() would let
    the first run of a three-day window write all days.
#}
{% macro window_start() %}{{ instant(var('window_start')) }}{% endmacro %}

{% macro window_end() %}{{ instant(var('window_end')) }}{% endmacro %}

{% macro in_window(column) -%}
    ({{ column }} >= {{ window_start() }} and {{ column }} < {{ window_end() }})
{%- endmacro %}
