{#
    Incremental strategy `replace_window`: in one transaction, take out what the window held and every row that is
    written again, and put in the new rows. Rows that are gone from the source are gone here too.

    Which months of which series changed is noted in the same transaction (bookkeeping.unpublished), so that publishing
    finds them even after a crash between the two.
#}
{% macro get_incremental_replace_window_sql(arg_dict) %}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set new = arg_dict['temp_relation'] -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') -%}

    insert into bookkeeping.unpublished
    select symbol, {{ interval_column() }}, month_start, '{{ invocation_id }}'
    from (
        select symbol, {{ interval_column() }}, date_trunc('month', open_time) as month_start from {{ new }}
        union
        select symbol, {{ interval_column() }}, date_trunc('month', open_time) as month_start from {{ target }}
        where {{ in_window('open_time') }}
    );

    delete from {{ target }}
    where {{ in_window('open_time') }};

    -- Bars after the window that are written again: each series has one stretch of them.
    delete from {{ target }}
    using (
        select symbol, {{ interval_column() }}, max(open_time) as last_open_time
        from {{ new }}
        where open_time >= {{ window_end() }}
        group by all
    ) as rewritten
    where
        {{ target.identifier }}.symbol = rewritten.symbol
        and {{ target.identifier }}.{{ interval_column() }} = rewritten.{{ interval_column() }}
        and {{ target.identifier }}.open_time >= {{ window_end() }}
        and {{ target.identifier }}.open_time <= rewritten.last_open_time;

    insert into {{ target }} ({{ columns }})
    select {{ columns }} from {{ new }};
{% endmacro %}


{# After a run that built the table anew nothing has been noted: then every month of every series has changed. #}
{% macro note_full_build() %}
    insert into bookkeeping.unpublished
    select distinct symbol, {{ interval_column() }}, date_trunc('month', open_time), '{{ invocation_id }}'
    from {{ this }}
    where not exists (select 1 from bookkeeping.unpublished where invocation = '{{ invocation_id }}')
{% endmacro %}
