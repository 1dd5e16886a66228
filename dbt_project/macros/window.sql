{#
    The run's half-open window, whole UTC days, from dbt's own --event-time-start and --event-time-end; without them all
    of history. (Not from --vars: dbt parses the whole project again whenever a variable changes, 5 s each time.)

    The window is applied whether or not the table exists yet: a filter inside is_incremental() would let the first run
    of a three-day window write all days.
#}
{% macro window_start() -%}
    {{ instant((invocation_args_dict.event_time_start or '2000-01-01 00:00:00') ~ '+00') }}
{%- endmacro %}

{% macro window_end() -%}
    {{ instant((invocation_args_dict.event_time_end or '2100-01-01 00:00:00') ~ '+00') }}
{%- endmacro %}

{% macro in_window(column) -%}
    ({{ column }} >= {{ window_start() }} and {{ column }} < {{ window_end() }})
{%- endmacro %}
