"""What is recorded of an asset graph."""

import dagster as dg


def describe(defs: dg.Definitions) -> dict[str, object]:
    """Of each asset: what it comes after, its partitions, checks and pools."""
    graph = defs.resolve_asset_graph()
    return {
        node.key.to_user_string(): {
            "group": node.group_name,
            "after": sorted(key.to_user_string() for key in node.parent_keys),
            "partitions": type(node.partitions_def).__name__ if node.partitions_def else None,
            "checks": sorted(key.name for key in graph.get_check_keys_for_assets({node.key})),
            "pools": sorted(node.pools or ()),
        }
        for node in sorted(graph.asset_nodes, key=lambda node: node.key)
    }
