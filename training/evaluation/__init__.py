"""How good a model is on talk it has never seen, what it says by heart, and whether a new adapter may speak."""
