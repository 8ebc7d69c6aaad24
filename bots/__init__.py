"""Platforms: each package or module turns a platform's events into `core` messages, and replies into posts."""
