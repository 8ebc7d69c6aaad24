"""Discord: being built."""
