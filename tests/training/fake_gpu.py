"""A GPU that is not there, for tests of code that moves tensors to one, on machines that have none.

Its tensors lie in the processor's memory and are computed there; but they say that they are on `CUDA`, and what a GPU
refuses, an operation on tensors of both places, is refused. Kernels of a GPU are not tested by this.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")

_BY_INDEX = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""A GPU's tensor may be indexed by the processor's."""


class _Memory:
    """Which memory is pretended to be the GPU's. A reference to it keeps its address from being given out again."""

    def __init__(self) -> None:
        self._known: dict[int, StorageWeakRef] = {}

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._known

    def take(self, made: Any) -> Any:
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = StorageWeakRef(storage)
        return made

    def give_back(self, tensor: Tensor) -> Tensor:
        self._known.pop(tensor.untyped_storage()._cdata, None)
        return tensor


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class _Kept(TorchDispatchMode):
    """Every operation, those of backward passes too: what comes of the GPU's tensors is the GPU's."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, what = _tensors((args, kwargs)), func.overloadpacket
        there = [tensor for tensor in given if self._memory.holds(tensor)]
        here = [tensor for tensor in given if tensor.ndim and not self._memory.holds(tensor)]
        made = func(*args, **(kwargs or {}))
        if not there or what is torch.ops.aten.copy_:
            return made
        if here and not (what in _BY_INDEX and self._memory.holds(given[0])):
            raise RuntimeError(f"{func} was given tensors of {CUDA} and of {CPU}")
        return self._memory.take(made)


class _Moved(TorchFunctionMode):
    """What a program says of places: `to`, `cpu`, `device=`, and the question where a tensor is."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__ and self._memory.holds(args[0]):
            return CUDA
        if func is Tensor.cpu:
            return self._moved(args[0], CPU)
        if func is Tensor.to:
            wanted = [*args[1:], *kwargs.values()]
            kind = [value for value in wanted if isinstance(value, torch.dtype)]
            place = [torch.device(value) for value in wanted if isinstance(value, str | torch.device)]
            moved = self._moved(args[0], place[0]) if place else args[0]
            return moved.to(kind[0]) if kind else moved
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == CUDA.type:
            return self._memory.take(func(*args, **kwargs | {"device": CPU}))
        return func(*args, **kwargs)

    def _moved(self, tensor: Tensor, place: torch.device) -> Tensor:
        if self._memory.holds(tensor) == (place.type == CUDA.type):
            return tensor
        copy = tensor.clone()
        return self._memory.take(copy) if place.type == CUDA.type else self._memory.give_back(copy)


@contextmanager
def pretended_cuda(monkeypatch: Any) -> Iterator[Callable[[Tensor], bool]]:
    """A GPU for as long as the block lasts; it gives a function that tells whether a tensor lies there."""
    memory = _Memory()
    drawn = torch.Generator()
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: drawn.get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: drawn.set_state(state))
    strict = torch.are_deterministic_algorithms_enabled()
    try:
        with _Moved(memory), _Kept(memory):
            yield memory.holds
    finally:
        torch.use_deterministic_algorithms(strict)
