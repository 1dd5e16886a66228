"""History: plan a month of a series (`plan`), land it (`month`), land many and keep a log of it (`run`).

Also here: comparing landed months with REST (`compare`).
"""
