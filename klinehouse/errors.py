"""Errors of the command line alone."""

from ingestion.errors import KlinehouseError


class DataDiffers(KlinehouseError):
    """Two layers, or two sources, do not say the same."""

    kind = "data_differs"
