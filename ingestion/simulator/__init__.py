"""A simulated exchange on loopback: one truth (`market`) behind three faces of the real one, `archive`, `rest`
and `stream`.

What it serves is marked in every answer, so that a raw zone fed by it knows.
"""
