"""A simulated exchange on loopback: one truth (`market`) behind the faces of the real one (`archive` so far).

What it serves is marked in every answer, so that a raw zone fed by it knows.
"""
