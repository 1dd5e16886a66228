{#
    From when on an increment of `this` has to read each interval so that it has what the averages remember: memory_bars()
    bars of every symbol that the run is about. {interval: instant}.

    Half as long again as those bars take without holes is looked at first. A symbol that has fewer bars there may have
    more before it, or be young: then the interval is read from its beginning.
#}
{% macro memory_starts() %}
    {%- set levels = [var('base_interval')] + rollup_intervals() -%}
    {%- set starts = {} -%}
    {%- for interval in levels -%}
        {%- do starts.update({interval: instant('1970-01-01 00:00:00+00')}) -%}
    {%- endfor -%}
    {%- if execute -%}
        {%- for row in run_query(least_bars_in_reach(levels)).rows if row[1] >= memory_bars() -%}
            {%- do starts.update({row[0]: window_start(row[0], bars_before=memory_bars() * 3 // 2)}) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(starts) -}}
{% endmacro %}

{% macro least_bars_in_reach(levels) -%}
    {%- for interval in levels %}
        select '{{ interval }}' as level, coalesce(min(found.bars), 0) as bars
        from (
            select run_symbols.symbol, count(bars.open_time) as bars
            from {{ source('crypto_raw', 'run_symbols') }} as run_symbols
            left join {{ this }} as bars
                on
                    run_symbols.symbol = bars.symbol
                    and bars.{{ interval_column() }} = '{{ interval }}'
                    and bars.open_time >= {{ window_start(interval, bars_before=memory_bars() * 3 // 2) }}
                    and bars.open_time < {{ window_start(interval) }}
            group by run_symbols.symbol
        ) as found
        {{ "union all" if not loop.last }}
    {%- endfor %}
{%- endmacro %}
