"""Databases for tests: an empty schema on a PostgreSQL server, which `conftest.postgres` finds or starts."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, make_url

from core.memory.opening import postgres_driver


@contextmanager
def empty_schema(server: str) -> Iterator[str]:
    """The URL of an empty schema on this server; dropped afterwards."""
    name = f"person2_test_{secrets.token_hex(6)}"
    engine = create_engine(postgres_driver(make_url(server)))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    url = make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
        engine.dispose()
