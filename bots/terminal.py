"""Terminal: being built."""
