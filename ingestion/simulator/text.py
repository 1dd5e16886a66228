"""Numbers of the truth as the exchange writes them."""

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.simulator.market import Ints


def decimals(values: Ints) -> pa.Array:
    """Units of 10^-8 as decimals with eight digits (inserting the point is five times faster than casting decimals)."""
    digits = pc.utf8_lpad(pc.cast(pa.array(values), pa.string()), width=9, padding="0")
    return pc.binary_replace_slice(digits, start=-8, stop=-8, replacement=".")
