"""Puts the compiled kernels into the wheel, and so makes it a wheel of one platform.

`PERSON2_WHEEL` names another platform than this one (`linux-x86_64`, `linux-aarch64`, `macos-arm64`, `windows-x86_64`),
for which `ziglang` compiles. Without a compiler the wheel is built without kernels, for any platform: the program then
compiles them where it runs, or speaks with torch's.
"""

import importlib.util
import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("core/generator/engine/kernels")


@dataclass(frozen=True, kw_only=True)
class Platform:
    machine: str
    system: str
    target: str
    """As zig names it."""
    tag: str
    """Of the wheel (PEP 425, PEP 600)."""


PLATFORMS = {
    "linux-x86_64": Platform(
        machine="x86_64",
        system="linux",
        target="x86_64-linux-gnu.2.17",
        tag="manylinux2014_x86_64.manylinux_2_17_x86_64",
    ),
    "linux-aarch64": Platform(
        machine="aarch64",
        system="linux",
        target="aarch64-linux-gnu.2.17",
        tag="manylinux2014_aarch64.manylinux_2_17_aarch64",
    ),
    "macos-arm64": Platform(machine="aarch64", system="darwin", target="aarch64-macos.11.0", tag="macosx_11_0_arm64"),
    "windows-x86_64": Platform(machine="x86_64", system="windows", target="x86_64-windows-gnu", tag="win_amd64"),
}


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's own configuration is of no use here
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Where this machine has no compiler of its own, one comes from the package index."""
        return ["ziglang>=0.13"] if os.environ.get("PERSON2_WHEEL") or not _build().local_compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = _build()
        wanted = os.environ.get("PERSON2_WHEEL")
        if wanted and wanted not in PLATFORMS:
            raise SystemExit(f"PERSON2_WHEEL is {wanted}, and it should be one of {', '.join(PLATFORMS)}")
        chosen = PLATFORMS.get(wanted or _here())
        if chosen is None:
            return  # a platform that no wheel covers compiles where it runs
        compiler = build.zig(chosen.target) if wanted else build.local_compiler()
        if compiler is None:
            self.app.display_warning("there is no C compiler: the wheel holds no kernels")
            return
        name = build.file_name(chosen.machine, chosen.system)
        editable = version == "editable"
        made = Path(self.root) / (KERNELS if editable else "build") / name
        try:
            if not made.exists():
                build.build(compiler, made, machine=chosen.machine, system=chosen.system)
        except build.BuildError as error:
            if wanted:
                raise SystemExit(f"the kernels for {wanted} could not be compiled: {error}") from error
            self.app.display_warning(f"the kernels could not be compiled ({error}): the wheel holds none")
            return
        if editable:
            return  # they lie beside their sources
        build_data["force_include"][str(made)] = str(KERNELS / name)
        build_data["pure_python"] = False
        if wanted or "ziglang" in compiler:
            # only zig's library runs on older systems than this one
            build_data["tag"] = f"py3-none-{chosen.tag}"
        else:
            build_data["tag"] = f"py3-none-{_local_tag()}"


def _here() -> str:
    system = {"darwin": "macos"}.get(platform.system().lower(), platform.system().lower())
    machine = _build().machine_of(platform.machine())
    return f"{system}-{'arm64' if system == 'macos' and machine == 'aarch64' else machine}"


def _local_tag() -> str:
    """This very system: what its own compiler made may need a C library as new as its."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _build() -> ModuleType:
    """`build.py` beside the C files, without importing the program, which is not installed yet."""
    spec = importlib.util.spec_from_file_location("person2_kernels_build", Path(__file__).parent / KERNELS / "build.py")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - for the type checker
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
