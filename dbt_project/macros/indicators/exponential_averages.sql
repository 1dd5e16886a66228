{#
    Exponential averages, all of a list at once, as common table expressions without recursion.

        E_i = (1 - alpha) * E_(i-1) + alpha * x_i

    is a geometric sum. Bars are numbered within their series (bar_index, from 0) and cut into blocks of 1024; with
    p the position in the block,

        P_i = alpha * (1 - alpha)^p * sum over the block up to i of x_j * (1 - alpha)^(-p_j)
        E_i = P_i + (1 - alpha)^(p + 1) * P at the end of the block before

    One earlier block is exact to double precision as long as (1 - alpha)^1024 < 1e-17, and the powers stay finite as
    long as alpha < 0.5; both are checked. The average starts, as in TA-Lib, with a simple average (the seed), which
    enters the sum as x_seed / alpha; before it the result is NULL.

    Arguments:
        name      the resulting common table expression: all columns of `source` and one per average
        source    a common table expression with symbol, interval, bar_index and the inputs
        averages  list of {name, input, alpha, seed_from, seed_at}: `input` is a column, the seed is its mean over the
                  bars seed_from..seed_at and is the average's value at seed_at

    Source: the recursion and its seeding are those of TA-Lib (ta_EMA.c, ta_RSI.c, ta_MACD.c).
#}
{% macro exponential_averages(name, source, averages) -%}
{%- set block = 1024 -%}
{%- for average in averages -%}
    {%- if not (1 - average.alpha) ** block < 1e-17 or average.alpha >= 0.5 -%}
        {{ exceptions.raise_compiler_error(average.name ~ ": alpha " ~ average.alpha ~ " needs another block length") }}
    {%- endif -%}
{%- endfor -%}
{{ name }}_seeds as (
    select
        symbol,
        {{ interval_column() }},
        {%- for average in averages %}
            avg(
                case when bar_index between {{ average.seed_from }} and {{ average.seed_at }} then {{ average.input }} end
            ) as {{ average.name }}_seed{{ "," if not loop.last }}
        {%- endfor %}
    from {{ source }}
    where bar_index <= {{ averages | map(attribute='seed_at') | max }}
    group by symbol, {{ interval_column() }}
),

{{ name }}_inputs as (
    select
        bars.*,
        {{ int_div('bars.bar_index', block) }} as block_number,
        mod(bars.bar_index, {{ block }}) as block_position,
        {%- for average in averages %}
            pow({{ double(1 - average.alpha) }}, mod(bars.bar_index, {{ block }})) as {{ average.name }}_power,
            case
                when bars.bar_index > {{ average.seed_at }} then bars.{{ average.input }}
                when bars.bar_index = {{ average.seed_at }} then seeds.{{ average.name }}_seed / {{ double(average.alpha) }}
            end as {{ average.name }}_input{{ "," if not loop.last }}
        {%- endfor %}
    from {{ source }} as bars
    inner join {{ name }}_seeds as seeds
        on bars.symbol = seeds.symbol and bars.{{ interval_column() }} = seeds.{{ interval_column() }}
),

{{ name }}_partials as (
    select
        *,
        {%- for average in averages %}
            {{ double(average.alpha) }} * {{ average.name }}_power
            * sum({{ average.name }}_input / {{ average.name }}_power) over block_so_far as {{ average.name }}_partial
            {{- "," if not loop.last }}
        {%- endfor %}
    from {{ name }}_inputs
    window
        block_so_far as (
            partition by symbol, {{ interval_column() }}, block_number
            order by bar_index
            rows between unbounded preceding and current row
        )
),

{{ name }}_carries as (
    select
        symbol,
        {{ interval_column() }},
        block_number + 1 as block_number,
        {%- for average in averages %}
            {{ average.name }}_partial as {{ average.name }}_carry{{ "," if not loop.last }}
        {%- endfor %}
    from {{ name }}_partials
    where block_position = {{ block - 1 }}
),

{{ name }} as (
    select
        partials.*,
        {%- for average in averages %}
            partials.{{ average.name }}_partial + coalesce(
                {{ double(1 - average.alpha) }} * partials.{{ average.name }}_power * carries.{{ average.name }}_carry,
                {{ double(0) }}
            ) as {{ average.name }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ name }}_partials as partials
    left join {{ name }}_carries as carries
        on
            partials.symbol = carries.symbol
            and partials.{{ interval_column() }} = carries.{{ interval_column() }}
            and partials.block_number = carries.block_number
)
{%- endmacro %}


{# The usual average of n bars, alpha = 2 / (n + 1), seeded by its first n bars, or by the n bars up to `seed_at`. #}
{% macro ema(name, input, n, seed_at=none) %}
    {%- set at = n - 1 if seed_at is none else seed_at -%}
    {{- return({'name': name, 'input': input, 'alpha': 2 / (n + 1), 'seed_from': at - n + 1, 'seed_at': at}) -}}
{% endmacro %}

{# Wilder's average of n changes, alpha = 1 / n, seeded by the first n changes (the change at bar 0 does not exist). #}
{% macro wilder(name, input, n) %}
    {{- return({'name': name, 'input': input, 'alpha': 1 / n, 'seed_from': 1, 'seed_at': n}) -}}
{% endmacro %}
