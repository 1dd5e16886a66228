{#
    Mean and population deviation of the last 20 bars, as common table expressions. As in exponential_averages the reach
    doubles: a sum of 16 bars is two sums of 8, and 20 bars are the last 16 and the 4 before them. Two groups of n and m
    bars have together the squared deviations

        Q = Q_n + Q_m + n * m / (n + m) * (mean_n - mean_m)^2

    (Chan, Golub, LeVeque, 1979), which loses nothing to large prices, and is exactly 0 when all prices are the same. (A
    running sum of squares does neither.) Before bar 19 the results mean nothing.

    Arguments:
        name      the resulting common table expression: the columns of `source`, mean_20 and deviation_20
        source    a common table expression that comes from numbered_bars
        input     the column to describe
#}
{% macro moments_of_20(name, source, input) -%}
{{ name }}_1 as (
    select
        *,
        {{ input }} as sum_1,
        {{ double(0) }} as squares_1
    from {{ source }}
),

{% for n in [1, 2, 4, 8] %}
{{ name }}_{{ n }}_and_{{ n }} as (
    select
        *,
        {{ earlier('sum_' ~ n, n) }} as sum_before,
        {{ earlier('squares_' ~ n, n) }} as squares_before
    from {{ name }}_{{ n }}
),

{{ name }}_{{ 2 * n }} as (
    select
        {{ all_but(['sum_before', 'squares_before'] + (['sum_' ~ n, 'squares_' ~ n] if n != 4 else [])) }},
        sum_{{ n }} + sum_before as sum_{{ 2 * n }},
        squares_{{ n }} + squares_before
        + (sum_{{ n }} - sum_before) * (sum_{{ n }} - sum_before) / {{ 2 * n }} as squares_{{ 2 * n }}
    from {{ name }}_{{ n }}_and_{{ n }}
),
{% endfor %}

{{ name }}_16_and_4 as (
    select
        {{ all_but(['sum_4', 'squares_4']) }},
        {{ earlier('sum_4', 16) }} as sum_before,
        {{ earlier('squares_4', 16) }} as squares_before
    from {{ name }}_16
),

{{ name }} as (
    select
        {{ all_but(['sum_16', 'squares_16', 'sum_before', 'squares_before']) }},
        (sum_16 + sum_before) / 20 as mean_20,
        sqrt(
            (
                squares_16 + squares_before
                + {{ double(16 * 4 / 20) }} * (sum_16 / 16 - sum_before / 4) * (sum_16 / 16 - sum_before / 4)
            ) / 20
        ) as deviation_20
    from {{ name }}_16_and_4
)
{%- endmacro %}
