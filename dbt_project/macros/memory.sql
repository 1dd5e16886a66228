{#
    What an increment of the bars is about: {interval: from when on it is read}, of the intervals of which bars may
    change, or of those `wanted`.

    The base interval always is. A longer one is if a bar of it in the window is over, or was made already: while an hour
    is not over, five new minutes change nothing of it, and it need not be looked at.

    It is read from so far back that it has what the averages remember: memory_bars() bars of every symbol that the run
    is about. That is as long as so many bars take, unless a symbol that began before has holes there; then half as long
    again; and if that is not enough, from the beginning.
#}
{% macro increment_starts(wanted=none) %}
    {%- set starts = dict.fromkeys(wanted or [], beginning()) -%}
    {%- if execute and load_relation(unified_bars()) -%}
        {%- if wanted is none -%}
            {%- set wanted = [var('base_interval')] + (
                run_query(touched_intervals()).columns[0].values() | list if rollup_intervals() else []
            ) -%}
        {%- endif -%}
        {%- for row in run_query(known_bars(wanted)).rows -%}
            {%- do starts.update({row[0]: window_start(row[0], row[1] | int) if row[1] else beginning()}) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(starts) -}}
{% endmacro %}

{# How far back to look for what the averages remember, in bars. #}
{% macro reaches() %}{{ return([memory_bars(), memory_bars() * 3 // 2]) }}{% endmacro %}

{# The longer intervals of which the window has a bar that is over, or had one. #}
{% macro touched_intervals() -%}
    with coverage as (
        select max(covered_until) as covered_until
        from {{ source('crypto_raw', 'klines_coverage') }}
        where {{ interval_column() }} = '{{ var("base_interval") }}' and {{ in_scope('symbol') }}
    ),

    made as (
        select distinct {{ interval_column() }} as level
        from {{ unified_bars() }}
        where {{ in_window_of_its_interval('open_time') }} and {{ in_scope('symbol') }}
    )

    {%- for interval in rollup_intervals() %}
        select '{{ interval }}' as level
        from coverage
        where
            covered_until >= {{ window_start(interval, bars_before=-1) }}
            or exists (select 1 from made where level = '{{ interval }}')
        {{ "union all" if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{# For each interval: the first of the reaches in which each symbol has memory_bars() bars, or all since it began. #}
{% macro known_bars(intervals) -%}
    with began as (
        select
            run_symbols.symbol,
            min(coverage.covered_from) as began_at
        from {{ source('crypto_raw', 'run_symbols') }} as run_symbols
        left join {{ source('crypto_raw', 'klines_coverage') }} as coverage
            on
                run_symbols.symbol = coverage.symbol
                and coverage.{{ interval_column() }} = '{{ var("base_interval") }}'
        group by run_symbols.symbol
    )

    {%- for interval in intervals %}
        select
            '{{ interval }}' as level,
            case
                {%- for reach in reaches() %}
                    when min(known_in_{{ reach }}) >= {{ memory_bars() }} then {{ reach }}
                {%- endfor %}
            end as bars_before
        from (
            select
                {%- for reach in reaches() %}
                    case
                        when min(began.began_at) < {{ window_start(interval, reach) }}
                            then count(case when bars.open_time >= {{ window_start(interval, reach) }} then 1 end)
                        else {{ memory_bars() }}
                    end as known_in_{{ reach }}{{ "," if not loop.last }}
                {%- endfor %}
            from began
            left join (
                select
                    symbol,
                    open_time
                from {{ unified_bars() }}
                where
                    {{ interval_column() }} = '{{ interval }}'
                    and open_time >= {{ window_start(interval, reaches()[-1]) }}
                    and open_time < {{ window_start(interval) }}
            ) as bars on began.symbol = bars.symbol
            group by began.symbol
        ) as found
        {{ "union all" if not loop.last }}
    {%- endfor %}
{%- endmacro %}

{# From when on the newest bars have in reach what the averages remember: a literal, which names the partitions to read. #}
{% macro live_start() %}
    {%- if execute and load_relation(source('crypto_raw', 'klines_coverage')) -%}
        {%- set told = run_query(
            "select max(covered_until) from " ~ source('crypto_raw', 'klines_coverage')
            ~ " where " ~ interval_column() ~ " = '" ~ var('base_interval') ~ "'"
        ).columns[0][0] -%}
        {%- if told -%}
            {%- set until = told.astimezone(modules.pytz.utc).replace(tzinfo=none) -%}
            {{- return(instant(aligned(until, var('base_interval'), 0, reaches()[-1]))) -}}
        {%- endif -%}
    {%- endif -%}
    {{- return(beginning()) -}}
{% endmacro %}

{# The table of bars, for its own model (which cannot refer to itself) and for those after it. #}
{% macro unified_bars() %}
    {{- return(this if model.name == 'market_data_unified' else ref('market_data_unified')) -}}
{% endmacro %}
