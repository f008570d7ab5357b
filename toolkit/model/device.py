"""Which device computes, and in which number format it decodes. Knows nothing of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gcrs.toolkit.errors import UsageError

if TYPE_CHECKING:
    import torch

BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions that multiply it


def check_device(device: str) -> None:
    """Raise UsageError where torch has no such device: later it would fail without a word that helps."""
    import torch

    asked = _device(device)
    if asked.type == "cuda" and (asked.index or 0) >= (have := torch.cuda.device_count()):
        found = f"{have} GPUs" if have else "no GPU"
        raise UsageError(f"device is {device}, but torch finds {found} here.", hint="Pass --device cpu.")


def pick_dtype(device: str, wanted: str = "auto") -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32; `wanted` may name either.

    On a CPU that means avx512_bf16 or amx (twice as fast as float32 or better); without them bfloat16 is emulated and
    slower. Raises UsageError for another name or device.
    """
    import torch

    named = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
    if wanted in named:
        return named[wanted]
    if wanted != "auto":
        raise UsageError(f"dtype is {wanted!r}, expected auto, float32 or bfloat16.")
    kind = _device(device).type
    if kind == "cuda":
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "cpu":
        native = _cpu_multiplies_bf16()
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def _device(device: str) -> torch.device:
    import torch

    try:
        return torch.device(device)
    except RuntimeError:
        raise UsageError(f"device is {device!r}, expected cpu, cuda, cuda:N or mps.") from None


def cpu_instructions() -> str:
    """What the CPU computes with, such as "AVX512, avx512_bf16": the same sums in another order round otherwise."""
    import torch

    have = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *(name for name in BF16 if have.get(name))])


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU says that it has bfloat16 dot products; False when this torch cannot tell."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        have = torch.cpu.get_capabilities()
        return any(have.get(name) for name in BF16)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch 2.6 to 2.9
    return bool(probe and probe())
