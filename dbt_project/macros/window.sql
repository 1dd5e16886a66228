{#
    The run's half-open window, from dbt's own --event-time-start and --event-time-end; without them all of history. (Not
    from --vars: dbt parses the whole project again whenever a variable changes, 5 s each time.)

    It begins and ends with bars of the base interval. The window of a longer interval is the bars that it touches, so a
    run over the five minutes that have just closed also makes the hour that closed with them, and the day.

    The window is applied whether or not the table exists yet: a filter inside is_incremental() would let the first run
    of a three-day window write all days.
#}
{% macro window_start(interval=none, bars_before=0) -%}
    {{ instant(aligned(invocation_args_dict.event_time_start or '2000-01-01', interval, 0, bars_before)) }}
{%- endmacro %}

{% macro window_end(interval=none) -%}
    {{ instant(aligned(invocation_args_dict.event_time_end or '2100-01-01', interval, 1)) }}
{%- endmacro %}

{# Before all bars. BigQuery wants a condition on the partitions, also of who reads all of them. #}
{% macro beginning() %}{{ instant('1970-01-01 00:00:00+00') }}{% endmacro %}

{# An instant moved to the start of the bar that holds it, or (with `up`) to its end, or by bars back from there. #}
{% macro aligned(at, interval, up, bars_before=0) -%}
    {%- set epoch = modules.datetime.datetime(1970, 1, 1) -%}
    {%- set seconds = (modules.datetime.datetime.fromisoformat(at | string) - epoch).total_seconds() | int -%}
    {%- set length = interval_seconds()[interval] if interval else 1 -%}
    {%- set aligned = (seconds + up * (length - 1)) // length * length - bars_before * length -%}
    {{- return((epoch + modules.datetime.timedelta(seconds=aligned)) | string ~ '+00') -}}
{%- endmacro %}

{# Whether a bar of `interval` (of the base interval if none is named) lies in the window. #}
{% macro in_window(column, interval=none) -%}
    ({{ column }} >= {{ window_start(interval) }} and {{ column }} < {{ window_end(interval) }})
{%- endmacro %}

{# Whether a bar lies in the window of its own interval. The widest window comes first, because only it prunes. #}
{% macro in_window_of_its_interval(column) -%}
    {%- set windows = {} -%}
    {%- for interval in [var('base_interval')] + rollup_intervals() -%}
        {%- do windows.update({interval: (window_start(interval), window_end(interval))}) -%}
    {%- endfor -%}
    {%- set narrowest, widest = windows.values() | first, windows.values() | last -%}
    ({{ column }} >= {{ widest[0] }} and {{ column }} < {{ widest[1] }}
    {%- if widest != narrowest %}
        and (
            {%- for interval, window in windows.items() %}
                ({{ interval_column() }} = '{{ interval }}' and {{ column }} >= {{ window[0] }} and {{ column }} < {{ window[1] }})
                {{- " or " if not loop.last }}
            {%- endfor %}
        )
    {%- endif -%}
    )
{%- endmacro %}

{# Whether the run is about a symbol: a run over history is about all of them, one over new bars about those that have any. #}
{% macro in_scope(column) -%}
    {{ column }} in (select symbol from {{ source('crypto_raw', 'run_symbols') }})
{%- endmacro %}
