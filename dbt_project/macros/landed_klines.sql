{#
    Landed klines for which `condition` holds, one row per series and bar: where sources overlap the order of trust is
    archive, REST, stream, then the latest.

    On DuckDB the view stg_klines has only the files of the run. On BigQuery the tables hold everything that has landed,
    so the condition stands at each of them, where it names the partitions to be read.
#}
{% macro landed_klines(condition) %}{{ adapter.dispatch('landed_klines')(condition) }}{% endmacro %}

{% macro duckdb__landed_klines(condition) -%}
select * from {{ ref('stg_klines') }}
where {{ condition }}
{%- endmacro %}

{% macro default__landed_klines(condition) -%}
select {{ kline_columns() | join(', ') }}
from (
    select {{ kline_columns() | join(', ') }} from {{ source('crypto_raw', 'klines') }}
    where {{ condition }}
    union all
    select {{ kline_columns() | join(', ') }} from {{ source('crypto_raw', 'klines_stream') }}
    where {{ condition }}
) as landed
qualify row_number() over ({{ by_trust() }}) = 1
{%- endmacro %}

{# Rows of one bar, the one that counts first. #}
{% macro by_trust(prefix='') -%}
    partition by {{ prefix }}symbol, {{ prefix }}{{ interval_column() }}, {{ prefix }}open_time
    order by
        case {{ prefix }}source
            when 'archive_monthly' then 1 when 'archive_daily' then 2 when 'rest' then 3 else 4
        end,
        {{ prefix }}ingested_at desc
{%- endmacro %}
