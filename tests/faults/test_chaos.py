"""The short form of `benchmarks/chaos.py`: the live path while its processes are killed and its connections cut."""

from benchmarks.chaos import Plan, chaos


def test_nothing_is_lost_doubled_or_different() -> None:
    found = chaos(Plan(minutes=4, seed=7, speed=8, kills=3, series=1, daemon=False))
    assert found["kills"] == 3
    assert isinstance(found["bars_expected"], int)
    assert found["bars_expected"] >= 3
    assert (found["bars_lost"], found["bars_doubled"], found["bars_different"]) == (0, 0, 0)
    assert isinstance(found["indicator_max_diff"], float)
    assert found["indicator_max_diff"] <= 1e-9
