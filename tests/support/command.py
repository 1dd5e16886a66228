"""The command line in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KLINEHOUSE = str(Path(sys.executable).with_name("klinehouse"))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings; nothing is raised for its exit code."""
    settings = {f"KLINEHOUSE_{name.upper()}": value for name, value in environment.items()}
    return subprocess.run([KLINEHOUSE, *arguments], capture_output=True, text=True, env=os.environ | settings)


def answer(*arguments: str, **environment: str) -> Any:
    """The JSON of a command that must succeed."""
    done = run(*arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
