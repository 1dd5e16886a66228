{#
    What an increment of `this` is about: {interval: from when on it is read}, of the intervals of which bars may change.

    The base interval always is. A longer one is if a bar of it in the window is over, or was made already: while an hour
    is not over, five new minutes change nothing of it, and it need not be looked at.

    It is read from so far back that it has what the averages remember: memory_bars() bars of every symbol that the run
    is about. Half as long again as those bars take without holes is looked at first. A symbol that has fewer bars there
    may have more before it, or be young: then the interval is read from its beginning.
#}
{% macro increment_starts() %}
    {%- set starts = {} -%}
    {%- if execute -%}
        {%- for row in run_query(known_bars()).rows -%}
            {%- set interval, in_reach, is_touched = row[0], row[1], row[2] -%}
            {%- if interval == var('base_interval') or is_touched -%}
                {%- set bars_before = reach() if in_reach >= memory_bars() else none -%}
                {%- set start = window_start(interval, bars_before) if bars_before else instant('1970-01-01 00:00:00+00') -%}
                {%- do starts.update({interval: start}) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(starts) -}}
{% endmacro %}

{% macro reach() %}{{ return(memory_bars() * 3 // 2) }}{% endmacro %}

{# For each interval: the bars in reach of the symbol that has fewest there; whether the window has a bar that is over. #}
{% macro known_bars() -%}
    with coverage as (
        select max(covered_until) as covered_until
        from {{ source('crypto_raw', 'klines_coverage') }}
        where {{ interval_column() }} = '{{ var("base_interval") }}' and {{ in_scope('symbol') }}
    )

    {%- for interval in [var('base_interval')] + rollup_intervals() %}
        select
            '{{ interval }}' as level,
            coalesce(min(found.in_reach), 0) as in_reach,
            coalesce(sum(found.in_window), 0) > 0
            or coalesce(
                (select covered_until >= {{ window_start(interval, bars_before=-1) }} from coverage), false
            ) as is_touched
        from (
            select
                run_symbols.symbol,
                count(case when bars.open_time < {{ window_start(interval) }} then 1 end) as in_reach,
                count(case when bars.open_time >= {{ window_start(interval) }} then 1 end) as in_window
            from {{ source('crypto_raw', 'run_symbols') }} as run_symbols
            left join {{ this }} as bars
                on
                    run_symbols.symbol = bars.symbol
                    and bars.{{ interval_column() }} = '{{ interval }}'
                    and bars.open_time >= {{ window_start(interval, reach()) }}
                    and bars.open_time < {{ window_end(interval) }}
            group by run_symbols.symbol
        ) as found
        {{ "union all" if not loop.last }}
    {%- endfor %}
{%- endmacro %}
