{#
    The config of a table that is kept up to date window by window. On DuckDB rows are replaced, on BigQuery whole
    partitions: there a partition costs no more than the rows of it, and a table of small changes becomes slow.

    Arguments:
        partition    the column and the length (day, month) of a partition on BigQuery
        large        whether who reads the table on BigQuery must say which partitions
        meta         see replace_window
#}
{% macro kept_by_window(partition, large=false, meta=none, post_hook=none) %}
    {%- set common = {'materialized': 'incremental', 'on_schema_change': 'fail', 'meta': meta or {}} -%}
    {%- if target.type == 'bigquery' -%}
        {{- return(dict(
            common,
            incremental_strategy='insert_overwrite',
            partition_by={'field': partition[0], 'data_type': 'timestamp', 'granularity': partition[1]},
            cluster_by=['symbol', 'interval'],
            require_partition_filter=large,
        )) -}}
    {%- endif -%}
    {{- return(dict(common, incremental_strategy='replace_window', **({'post_hook': post_hook} if post_hook else {}))) -}}
{% endmacro %}


{# The condition by which rows of the table are the run's own: what it does not make again is gone. #}
{% macro held_by_window() -%}
    {%- set meta = config.get('meta') or {} -%}
    {%- set time_column = meta.get('time_column', 'open_time') -%}
    (
        {% if 'begin_column' in meta -%}
            {{ time_column }} >= {{ window_start() }} and {{ meta.begin_column }} < {{ window_end() }}
        {%- else -%}
            {{ in_window_of_its_interval(time_column) }}
        {%- endif %}
        and {{ in_scope('symbol') }}
    )
{%- endmacro %}


{#
    Incremental strategy `replace_window`: in one transaction, take out what the window held and every row that is
    written again, and put in the new rows. Rows that are gone from the source are gone here too.

    The model's meta says by which column a row lies in the window (`time_column`, open_time if it says nothing; a row
    that is about a stretch of time also names the column where that begins, `begin_column`; without one a row lies in
    the window of its own interval), and whether its months are published one by one (`published_by_month`): then which
    months of which series changed, and from which bar on, is noted in the same transaction (bookkeeping.unpublished), so that publishing finds
    them even after a crash between the two. Symbols that the run is not about are left alone.
#}
{% macro get_incremental_replace_window_sql(arg_dict) %}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set new = arg_dict['temp_relation'] -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') -%}
    {%- set meta = config.get('meta') or {} -%}
    {%- set time_column = meta.get('time_column', 'open_time') -%}
    {%- set held = held_by_window() -%}

    {% if meta.get('published_by_month') %}
        insert into bookkeeping.unpublished
        select symbol, {{ interval_column() }}, date_trunc('month', open_time), min(open_time), '{{ invocation_id }}'
        from (
            select symbol, {{ interval_column() }}, open_time from {{ new }}
            union all
            select symbol, {{ interval_column() }}, open_time from {{ target }}
            where {{ held }}
        )
        group by all;
    {% endif %}

    delete from {{ target }}
    where {{ held }};

    -- Rows after the window that are written again: each series has one stretch of them.
    delete from {{ target }}
    using (
        select symbol, {{ interval_column() }}, max({{ time_column }}) as last_rewritten
        from {{ new }}
        where {{ time_column }} >= {{ window_end() }}
        group by all
    ) as rewritten
    where
        {{ target.identifier }}.symbol = rewritten.symbol
        and {{ target.identifier }}.{{ interval_column() }} = rewritten.{{ interval_column() }}
        and {{ target.identifier }}.{{ time_column }} >= {{ window_end() }}
        and {{ target.identifier }}.{{ time_column }} <= rewritten.last_rewritten;

    insert into {{ target }} ({{ columns }})
    select {{ columns }} from {{ new }};
{% endmacro %}


{#
    After a run that built the table anew nothing has been noted: then every month of every series has changed. (Asked
    first, because DuckDB would look through all bars before it finds that there is nothing to insert.)
#}
{% macro note_full_build() %}
    {%- set noted = "select count(*) from bookkeeping.unpublished where invocation = '" ~ invocation_id ~ "'" -%}
    {%- if execute and run_query(noted).rows[0][0] == 0 %}
    insert into bookkeeping.unpublished
    select symbol, {{ interval_column() }}, date_trunc('month', open_time), min(open_time), '{{ invocation_id }}'
    from {{ this }}
    group by all
    {%- endif %}
{% endmacro %}
