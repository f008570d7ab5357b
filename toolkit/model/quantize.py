"""4-bit base weights for training (QLoRA): NF4 with double quantisation through bitsandbytes, computing in bfloat16.

Knows nothing of adapters or data. Bundles never hold 4-bit weights: the adapter is merged into the base's own.
Source: Dettmers et al., QLoRA, 2023.
"""

from __future__ import annotations

from typing import Any

from gcrs.toolkit.errors import MissingModelError, UsageError


def four_bit(device: str) -> dict[str, Any]:
    """Options of from_pretrained that load linear layers in 4 bits onto `device`.

    Raises MissingModelError (exit 4) without bitsandbytes, UsageError (exit 2) when it cannot compute on the device.
    """
    import torch

    from gcrs.toolkit.model.quiet import quiet_bitsandbytes

    quiet_bitsandbytes()
    try:
        import bitsandbytes as bnb
    except (ImportError, OSError) as error:
        raise MissingModelError(
            "quantize: 4bit needs the package bitsandbytes, which is not installed.", hint="pip install 'gcrs[qlora]'"
        ) from error
    from transformers import BitsAndBytesConfig

    try:  # a device without kernels says so only when it is asked to compute
        probe = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to(device)
        probe(torch.ones(1, 64, device=device)).sum()
    except (RuntimeError, NotImplementedError, AssertionError, AttributeError) as error:
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UsageError(
            f"bitsandbytes {bnb.__version__} has no 4-bit kernels for {device}: {said}.",
            hint="Choose another --device, or leave out quantize.",
        ) from error
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings, "device_map": {"": device}}
