"""Exports and the bot's own log → dialogue files."""
