{#
    Exponential averages, all of a list at once, as common table expressions without recursion.

        E_i = (1 - alpha) * E_(i-1) + alpha * x_i = sum over k >= 0 of alpha * (1 - alpha)^k * x_(i-k)

    The sum of the last 2n terms is the sum of the last n and, weighted by (1 - alpha)^n, that of the n before them. So
    n = 1, 2, 4, ... doubles its reach with each step, and stops where (1 - alpha)^n < 1e-17: there double precision
    forgets the rest. No average may reach further than memory_bars(), which increments count on; that is checked.

    The average starts, as in TA-Lib, with a simple average (the seed) of the bars seed_from..seed_at and is NULL before
    seed_at. Since everything here is linear, the seed needs no step of its own: those bars enter the sum with the weights
    that make it their mean at seed_at, and the bars before them with none.

    Arguments:
        name      the resulting common table expression: the columns of `source`, and one per average
        source    a common table expression that comes from numbered_bars
        averages  list of {name, input, alpha, seed_from, seed_at}: `input` is a column of `source`

    Source: the recursion and its seeding are those of TA-Lib (ta_EMA.c, ta_RSI.c, ta_MACD.c).
#}
{% macro exponential_averages(name, source, averages) -%}
{%- set ns = namespace(reach=1) -%}
{{ name }}_reaching_1 as (
    select
        *,
        {%- for average in averages %}
            case
                when bar_index > {{ average.seed_at }} then {{ double(average.alpha) }} * {{ average.input }}
                when bar_index >= {{ average.seed_from }}
                    then
                        {{ average.input }} * pow({{ double(1 - average.alpha) }}, bar_index - {{ average.seed_at }})
                        / {{ average.seed_at - average.seed_from + 1 }}
                else {{ double(0) }}
            end as {{ average.name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ source }}
),

{% for step in range(memory_reach(averages)) %}
{{ name }}_reaching_{{ 2 * ns.reach }} as (
    {%- set reaching = [] -%}
    {%- for average in averages if (1 - average.alpha) ** ns.reach >= 1e-17 %}{% do reaching.append(average) %}{% endfor %}
    select
        {{ all_but(reaching | map(attribute='name') | list) }},
        {%- for average in reaching %}
            {{ average.name }} + {{ double((1 - average.alpha) ** ns.reach) }} * {{ earlier(average.name, ns.reach) }}
            as {{ average.name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ name }}_reaching_{{ ns.reach }}
),
    {%- set ns.reach = 2 * ns.reach %}
{% endfor %}

{{ name }} as (
    select * replace (
        {%- for average in averages %}
            case when bar_index >= {{ average.seed_at }} then {{ average.name }} end as {{ average.name }}
            {{- "," if not loop.last }}
        {%- endfor %}
    )
    from {{ name }}_reaching_{{ ns.reach }}
)
{%- endmacro %}


{# How often the reach doubles until the slowest of the averages has forgotten the rest. #}
{% macro memory_reach(averages) %}
    {%- set keep = 1 - averages | map(attribute='alpha') | min -%}
    {%- for steps in range(1, 64) if keep ** (2 ** steps) < 1e-17 -%}
        {%- if loop.first -%}
            {%- if 2 ** steps > memory_bars() -%}
                {{ exceptions.raise_compiler_error("An average with alpha " ~ (1 - keep) ~ " remembers more than memory_bars()") }}
            {%- endif -%}
            {{- return(steps) -}}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{# The usual average of n bars, alpha = 2 / (n + 1), seeded by its first n bars, or by the n bars up to `seed_at`. #}
{% macro ema(name, input, n, seed_at=none) %}
    {%- set at = n - 1 if seed_at is none else seed_at -%}
    {{- return({'name': name, 'input': input, 'alpha': 2 / (n + 1), 'seed_from': at - n + 1, 'seed_at': at}) -}}
{% endmacro %}

{# Wilder's average of n changes, alpha = 1 / n, seeded by the first n changes (the change at bar 0 does not exist). #}
{% macro wilder(name, input, n) %}
    {{- return({'name': name, 'input': input, 'alpha': 1 / n, 'seed_from': 1, 'seed_at': n}) -}}
{% endmacro %}
