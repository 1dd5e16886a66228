-- The linter takes the `rows` of a window without order (in numbered_bars) for a name, and cannot parse on.
-- sqlfluff:ignore:parsing
{{
    config(**kept_by_window(
        partition=('open_time', 'day'),
        large=true,
        meta={'published_by_month': true},
        post_hook="{{ note_full_build() }}",
    ))
}}

{%- set levels = [var('base_interval')] + rollup_intervals() -%}
{%- set starts = increment_starts() if is_incremental() else dict.fromkeys(levels) -%}

with

{% if is_incremental() -%}
    {{ bars_of_window('bars_of_window', starts) }},

    {{ bars_around('bars', 'bars_of_window', starts) }},
{%- else -%}
    {{ bars_of_window('bars', starts) }},
{%- endif %}

{{ indicators('bars') }}

-- On DuckDB the rows are in order, one series after the other: a query for one series and period then reads few row
-- groups.
select
    symbol,
    {{ interval_column() }},
    open_time,
    {{ bar_measures() | join(',\n    ') }},
    {{ indicator_columns() | join(',\n    ') }},
    {{ part('hour', 'open_time') }} as hour,
    {{ part('isodow', 'open_time') }} as day_of_week,
    {{ part('month', 'open_time') }} as month,
    source,
    ingested_at
from indicators
where
    {%- for interval in starts %}
        ({{ interval_column() }} = '{{ interval }}' and open_time >= {{ window_start(interval) }})
        {{- " or " if not loop.last }}
    {%- endfor %}
