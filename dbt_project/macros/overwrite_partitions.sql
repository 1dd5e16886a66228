{#
    The same as `replace_window` on BigQuery, by dbt's strategy `insert_overwrite`: one MERGE replaces exactly the
    partitions that hold a row of the window, old or new. Rows of those partitions that the run is not about are written
    again as they are. (This is dbt's own macro of this name, which leaves that to the model.)

    The partitions are literals, asked for first: BigQuery reads all partitions where they come from a subquery.
#}
{% macro bq_generate_incremental_insert_overwrite_build_sql(
    tmp_relation, target_relation, sql, unique_key, partition_by, partitions, dest_columns, tmp_relation_exists, copy_partitions
) %}
    {%- set columns = dest_columns | map(attribute='quoted') | join(', ') -%}
    {%- set touched = touched_partitions(tmp_relation, target_relation, partition_by) -%}
    {%- if not touched -%}
        {{- return('drop table if exists ' ~ tmp_relation) -}}
    {%- endif -%}
    {%- set source_sql -%}
        (
            select {{ columns }} from {{ tmp_relation }}
            union all
            select {{ columns }}
            from {{ target_relation }} as kept
            where
                {{ partition_by.render() }} in ({{ touched | join(', ') }})
                and not {{ held_by_window() }}
                and not exists (
                    select 1
                    from {{ tmp_relation }} as made
                    where
                        made.symbol = kept.symbol
                        and made.{{ interval_column() }} = kept.{{ interval_column() }}
                        and made.{{ partition_by.field }} = kept.{{ partition_by.field }}
                )
        )
    {%- endset -%}
    {%- set predicate -%}
        {{ partition_by.render_wrapped(alias='DBT_INTERNAL_DEST') }} in ({{ touched | join(', ') }})
    {%- endset -%}
    {{- return(
        get_insert_overwrite_merge_sql(target_relation, source_sql, dest_columns, [predicate])
        ~ ';\ndrop table if exists ' ~ tmp_relation
    ) -}}
{% endmacro %}


{# The partitions that hold a row that was made or one that the run takes out, as literals. #}
{% macro touched_partitions(made, target_relation, partition_by) %}
    {%- set partition = partition_by.render_wrapped() -%}
    {%- set found = run_query(
        'select ' ~ partition ~ ' as part from ' ~ made
        ~ ' union distinct select ' ~ partition ~ ' from ' ~ target_relation ~ ' where ' ~ held_by_window()
    ) -%}
    {%- set literals = [] -%}
    {%- for part in found.columns[0].values() | sort -%}
        {%- do literals.append(instant(part.strftime('%Y-%m-%d %H:%M:%S+00'))) -%}
    {%- endfor -%}
    {{- return(literals) -}}
{% endmacro %}
