"""SQL that dbt makes of the project for one of its targets, without a connection to anything.

dbt itself renders (`dbt compile --inline`), with its own dispatch to the engine's macros. Parsing takes 5 s for each
target, and is done once a process; a text then takes 0.2 s.
"""

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from warehouse.dbt import PROJECT_DIR

PROJECT = "klinehouse-test"
"""The project of Google Cloud in names of tables of the target bigquery."""

_SCHEMA = "crypto_analytics"
_NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens
_PROFILE = {
    "duckdb": {"type": "duckdb", "path": ":memory:", "schema": _SCHEMA, "settings": {"TimeZone": "UTC"}},
    "bigquery": {
        "type": "bigquery",
        "method": "oauth-secrets",
        "project": PROJECT,
        "schema": _SCHEMA,
        "threads": 1,
        **dict.fromkeys(("token", "refresh_token", "client_id", "client_secret"), "none"),
        "token_uri": f"{_NOWHERE}/token",
        "api_endpoint": _NOWHERE,
        "job_retries": 0,
    },
}


@cache
def render(text: str, target: str) -> str:
    """A text with Jinja as a query of the target `duckdb` or `bigquery`; macros that ask the engine do not work."""
    arguments = ["compile", "--inline", text, "--no-introspect", "--no-populate-cache"]
    result = _invoke(_manifest(target), ["--no-write-json"], arguments, target)
    compiled: str = result.results[0].node.compiled_code
    return compiled.strip()


@cache
def _manifest(target: str) -> Any:
    return _invoke(None, [], ["parse", "--no-partial-parse"], target)


def _invoke(manifest: Any, flags: Sequence[str], arguments: Sequence[str], target: str) -> Any:
    from dbt.cli.main import dbtRunner

    quiet = ["--quiet", "--log-level", "none", "--log-level-file", "none", "--no-use-colors"]
    with tempfile.TemporaryDirectory() as folder:
        profile = {"klinehouse": {"target": target, "outputs": _PROFILE}}
        Path(folder, "profiles.yml").write_text(json.dumps(profile))  # JSON is YAML
        places = [
            f"--{name}={place}"
            for name, place in (
                ("project-dir", PROJECT_DIR),
                ("profiles-dir", folder),
                ("target-path", folder),
                ("log-path", folder),
                ("target", target),
            )
        ]
        result = dbtRunner(manifest).invoke([*quiet, *flags, *arguments, *places])
    assert result.success, result.exception or [each.message for each in result.result.results]
    return result.result
