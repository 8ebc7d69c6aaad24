"""Whose words training uses, and how they leave again: consent, own log, register of runs, forgetting, export.

Nothing here loads torch but `provenance`, so that a bot can forget a member at once.
"""
