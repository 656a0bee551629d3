"""Faults on purpose: kills, pauses and lost data, against real processes.

``python -m tests.faults`` runs them all and prints a table; the tests run short doses.
"""
