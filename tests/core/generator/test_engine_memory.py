"""How much memory the engine takes for keys and values, by the size of the machine or of its container."""

from pathlib import Path

import pytest

from core.generator.engine import memory


@pytest.mark.parametrize(
    ("files", "megabytes"),
    [
        ({}, 640),  # a machine of 16 GB, no container
        ({"memory.max": "max"}, 640),
        ({"memory.max": "512000000"}, 64),
        ({"memory/memory.limit_in_bytes": "1000000000"}, 125),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, 640),  # none is set
    ],
)
def test_a_fraction_of_the_machine_or_its_container(
    files: dict[str, str], megabytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eighth of what there is, and never more than is of use."""
    monkeypatch.setattr(memory, "physical_memory", lambda: 16_000_000_000)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert memory.default_cache_mb(tmp_path) == megabytes
