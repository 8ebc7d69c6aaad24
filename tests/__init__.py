"""Tests mirror the packages; `fakes` and `models` hold what they share."""
