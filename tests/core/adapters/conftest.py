"""A registry with something in it."""

from pathlib import Path

import pytest

from core.adapters import AdapterRegistry
from tests.core.adapters.test_registry import NOON, adapter, card


@pytest.fixture
def registry(tmp_path: Path) -> AdapterRegistry:
    """Three adapters, `one` the oldest; nothing promoted."""
    registry = AdapterRegistry(tmp_path / "adapters", clock=lambda: NOON)
    made = adapter(tmp_path / "made")
    for hour, name in enumerate(("one", "two", "three")):
        registry.add(made, card(name, hour=hour))
    return registry
