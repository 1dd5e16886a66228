"""A simulated exchange on loopback: one truth (`market`) behind two faces of the real one, `archive` and `rest`.

What it serves is marked in every answer, so that a raw zone fed by it knows.
"""
