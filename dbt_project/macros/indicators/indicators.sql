{#
    How many bars an exponential average remembers to double precision: (1 - 2/51)^1024 < 1e-17. An increment reads as
    many bars before its window, and computes as many bars after it again.
#}
{% macro memory_bars() %}{{ return(1024) }}{% endmacro %}


{#
    The eight indicators as common table expressions; the last one, `indicators`, has the columns of `bars` and sma_20,
    ema_50, rsi_14, macd, macd_signal, bb_upper, bb_middle, bb_lower, NULL while they warm up. On DuckDB its rows
    come one series after the other, each in order of time.

    Argument: a common table expression with symbol, interval, open_time, close (double) and any other columns, whose
    first bar of each series is the first there is, or lies memory_bars() before the first one whose indicators are used.

    Definitions (all as TA-Lib computes them):
        sma_20         mean of 20 closes; from bar 19
        ema_50         alpha 2/51, seed: mean of 50 closes; from bar 49
        rsi_14         100 * G / (G + L) of Wilder's averages of gains and losses, alpha 1/14, seed: mean of the first
                       14 changes; 0 when nothing moved; from bar 14 (Wilder, New Concepts in Technical Trading
                       Systems, 1978)
        macd           EMA 12 - EMA 26, both seeded at bar 25; shown from bar 33, where its signal starts
        macd_signal    EMA 9 of macd, seed: its first 9 values; from bar 33 (Appel)
        bb_*           sma_20 and 2 population standard deviations around it; from bar 19 (Bollinger)
#}
{% macro indicators(bars) -%}
{{ numbered_bars('numbered', bars) }},

{{ moments_of_20('described', 'numbered', 'close') }},

changes as (
    select
        *,
        close - {{ earlier('close', 1) }} as change
    from described
),

moves as (
    select
        {{ all_but(['change']) }},
        case when change > 0 then change else {{ double(0) }} end as gain,
        case when change < 0 then -change else {{ double(0) }} end as loss
    from changes
),

{{ exponential_averages('first_level', 'moves', [
    ema('ema_50', 'close', 50),
    wilder('average_gain', 'gain', 14),
    wilder('average_loss', 'loss', 14),
    ema('ema_12', 'close', 12, seed_at=25),
    ema('ema_26', 'close', 26),
]) }},

differences as (
    select
        *,
        ema_12 - ema_26 as difference
    from first_level
),

{{ exponential_averages('second_level', 'differences', [ema('macd_signal', 'difference', 9, seed_at=33)]) }},

indicators as (
    select
        {{ all_but([
            'bar_index', 'mean_20', 'deviation_20', 'gain', 'loss', 'average_gain', 'average_loss', 'ema_12', 'ema_26',
            'difference'
        ]) }},
        case when bar_index >= 19 then mean_20 end as sma_20,
        -- TA-Lib takes anything below 1e-14 for no movement.
        case
            when average_gain + average_loss < 1e-14 then {{ double(0) }}
            else 100 * average_gain / (average_gain + average_loss)
        end as rsi_14,
        case when bar_index >= 33 then difference end as macd,
        case when bar_index >= 19 then mean_20 + 2 * deviation_20 end as bb_upper,
        case when bar_index >= 19 then mean_20 end as bb_middle,
        case when bar_index >= 19 then mean_20 - 2 * deviation_20 end as bb_lower
    from second_level
)
{%- endmacro %}
