"""Slack: being built."""
