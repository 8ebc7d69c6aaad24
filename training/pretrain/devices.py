"""Where a run computes and in which precision, and what makes it deterministic.

On a GPU the gradient of fused attention, sums by index and cuBLAS's split sums differ slightly every time
(https://docs.pytorch.org/docs/stable/notes/randomness.html); a resumed run would then be another run.
"""

import os
from enum import StrEnum

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from core.errors import TrainingError
from training.finetune.base import device as usual
from training.finetune.base import wants_bf16


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def device_of(wanted: Device) -> torch.device:
    """Raises TrainingError where there is no such device."""
    if wanted is Device.AUTO:
        return usual()
    if wanted is Device.CUDA and not torch.cuda.is_available():
        raise TrainingError("This machine has no CUDA device; use --device cpu.")
    return torch.device(wanted.value)


def dtype_of(wanted: Precision, device: torch.device) -> torch.dtype:
    """Of the passes on `device`; the weights themselves stay float32."""
    if wanted is Precision.AUTO:
        return torch.bfloat16 if wants_bf16("auto", device) else torch.float32
    return torch.bfloat16 if wanted is Precision.BFLOAT16 else torch.float32


def settle(network: GPT2LMHeadModel, device: torch.device, dtype: torch.dtype) -> None:
    """Move `network`, in place, and choose deterministic kernels; on CUDA for the rest of the process."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        # Warn about operations without a deterministic kernel instead of failing: training works, only not to the bit.
        torch.use_deterministic_algorithms(True, warn_only=True)
    network.to(device)  # type: ignore[arg-type,unused-ignore] # transformers wraps `to` and loses its type
    if device.type == "cuda" or dtype is torch.bfloat16:
        # On a CPU with native bfloat16 a step is a quarter faster than with the fused kernel, at these lengths; in
        # float32 it is a third slower.
        network.set_attn_implementation("eager")


def own_random(device: torch.device) -> Tensor | None:
    """The state of the device's own generator, from which dropout draws there: uint8 on the processor; it has none."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore_own_random(state: Tensor | None, device: torch.device) -> None:
    """Restore the state from `own_random`; nothing is done where the run began on another kind of device."""
    if state is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
