"""Benchmarks of speed, exactness and reliability. Not shipped; see README.md here."""
