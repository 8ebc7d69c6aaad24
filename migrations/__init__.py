"""Alembic's migrations, shipped as a package so that they run from a wheel too. `core.memory.opening` runs them."""
