"""Alembic's migrations, shipped as a package so that they run from a wheel too. `core.memory.database` runs them."""
