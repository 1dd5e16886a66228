"""One writer at a time on the warehouse file."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.homes import home

from ingestion.errors import WarehouseBusy
from warehouse.engine import connect, writing

HOLD_LOCK = """
import sys
from ingestion.settings import load_settings
from warehouse.engine import writing
with writing(load_settings(home=sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_FILE = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1] + "/warehouse/klinehouse.duckdb")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("program", [HOLD_LOCK, HOLD_FILE], ids=["writer", "stranger"])
def test_a_warehouse_held_by_another_process_is_busy(tmp_path: Path, program: str) -> None:
    settings = home(tmp_path, warehouse_wait=0)
    with writing(settings), connect(settings):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseBusy), writing(settings), connect(settings):
            pass
        holder.communicate()
    with writing(settings), connect(settings) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
