{#
    The macro of all averages against numbers worked by hand. (A dbt unit test compares doubles for equality; this one
    allows for their last digits.)

    x = 1, 2, 3, 4, 10, 0, 5 with n = 4: alpha = 0.4, seed (1 + 2 + 3 + 4) / 4 = 2.5 at bar 3, then
    0.6 * 2.5 + 0.4 * 10 = 5.5, 0.6 * 5.5 + 0.4 * 0 = 3.3, 0.6 * 3.3 + 0.4 * 5 = 3.98.
    Wilder with n = 4 (alpha = 0.25) is seeded by bars 1 to 4: (2 + 3 + 4 + 10) / 4 = 4.75, then 0.75 * 4.75 = 3.5625 and
    0.75 * 3.5625 + 0.25 * 5 = 3.921875.
    The late seed at bar 5 is (3 + 4 + 10 + 0) / 4 = 4.25, then 0.6 * 4.25 + 0.4 * 5 = 4.55.
#}
{{ config(tags=['unit']) }}

with by_hand as (
    {%- set rows = [
        (0, 1, none, none, none), (1, 2, none, none, none), (2, 3, none, none, none), (3, 4, 2.5, none, none),
        (4, 10, 5.5, 4.75, none), (5, 0, 3.3, 3.5625, 4.25), (6, 5, 3.98, 3.921875, 4.55)
    ] -%}
    {%- for i, x, usual, wilder, late in rows %}
        select
            'ABC' as symbol,
            '1h' as {{ interval_column() }},
            {{ from_micros(i * 3600000000) }} as open_time,
            {{ double(x) }} as x,
            {{ double(usual) if usual is not none else 'null' }} as expected_usual,
            {{ double(wilder) if wilder is not none else 'null' }} as expected_wilder,
            {{ double(late) if late is not none else 'null' }} as expected_late
        {{ "union all" if not loop.last }}
    {%- endfor %}
),

{{ numbered_bars('numbered', 'by_hand') }},

{{ exponential_averages('averaged', 'numbered', [
    ema('usual', 'x', 4), wilder('wilder', 'x', 4), ema('late', 'x', 4, seed_at=5)
]) }}

select *
from averaged
where
    {% for name in ['usual', 'wilder', 'late'] %}
        ({{ name }} is null) != (expected_{{ name }} is null)
        or abs({{ name }} - expected_{{ name }}) > 1e-12
        {{ "or" if not loop.last }}
    {% endfor %}
