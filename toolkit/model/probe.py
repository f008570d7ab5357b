"""How fast this machine trains: a few seconds of real forward and backward passes through two blocks of the base.

The blocks have the base's sizes and random weights, so no weights need be there. Knows nothing of data or catalogues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.forecast import Shape, Speed, Work

BLOCKS, ROWS = 2, 512  # of the probe; the head's cost is measured apart
ENOUGH = 0.4  # seconds that a pass should take before it is believed
HEAD_ROWS, HEAD_TOKENS = 16_384, 256


def measure_speed(settings: Mapping[str, Any], config: FinetuneConfig, work: Work) -> Speed:
    """Seconds a token and block, a token and row of the head, a trained number. `settings` is the base's config.json.

    4-bit layers are timed as bf16 ones. Leaves torch's random state as it was. DataError when the config.json does
    not describe a model that transformers knows.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        layer, update = _blocks(settings, config, work)
        return Speed(layer, _head(Shape.of(settings), config, work), update)


def precision(device: str) -> Any:
    """The trainer's own: bf16 autocast where the device multiplies it natively."""
    import torch

    from gcrs.toolkit.model.device import pick_dtype

    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=pick_dtype(device) == torch.bfloat16)


def _timed(run: Callable[[], None], device: str) -> float:
    """Seconds of one call, the better of two after a first that warms up."""
    import torch

    run()
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _blocks(settings: Mapping[str, Any], config: FinetuneConfig, work: Work) -> tuple[float, float]:
    """(seconds a token and block, seconds a trained number)."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from gcrs.toolkit.model.adapter import AdapterShape, attach, linear_names
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.loss import SupervisedLoss

    sizes = {key: value for key, value in settings.items() if key not in ("layer_types", "model_type", "dtype")}
    blocks = min(BLOCKS, Shape.of(settings).layers)
    sizes |= {"num_hidden_layers": blocks, "vocab_size": ROWS, "pad_token_id": None}
    dtype = pick_dtype(config.device) if config.method == "lora" else torch.float32
    try:
        model: Any = AutoModelForCausalLM.from_config(CONFIG_MAPPING[settings["model_type"]](**sizes), dtype=dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"The base's config.json is none that transformers can build: {error}.") from error
    model = model.to(config.device)
    if config.method == "lora":
        model = attach(model, range(ROWS - 16, ROWS), AdapterShape(config.rank, config.alpha, config.dropout), 0)
    else:
        names = {f"{name}.weight" for name in linear_names(model)}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in names
    if config.recompute:
        recompute(model)
    loss = SupervisedLoss(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    length = max(2, min(work.length, work.at_once))
    count = max(1, min(work.at_once, 512) // length)
    while True:
        ids = torch.randint(0, ROWS, (count, length), device=config.device)
        weights = torch.zeros(count, length, device=config.device)
        weights[:, -2:] = 1

        def passes(ids: torch.Tensor = ids, weights: torch.Tensor = weights) -> None:
            with precision(config.device):
                loss(ids, weights)[0].backward()

        seconds = _timed(passes, config.device)
        if seconds >= ENOUGH or (count + 1) * length > work.at_once:
            break
        count = min(4 * count, work.at_once // length)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    numbers = sum(parameter.numel() for parameter in trained)
    return seconds / (ids.numel() * blocks), _timed(update, config.device) / numbers


def _head(shape: Shape, config: FinetuneConfig, work: Work) -> float:
    """Seconds a supervised token and row of the head."""
    import torch

    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.fused import chunked_loss

    rows, count = min(shape.rows, HEAD_ROWS), max(1, min(work.supervised_at_once, HEAD_TOKENS))
    lora, frozen = config.method == "lora", pick_dtype(config.device)
    hidden = torch.randn(count, shape.width, device=config.device, requires_grad=True)
    weight = torch.randn(rows, shape.width, device=config.device, requires_grad=not lora)
    wanted = torch.zeros(count, dtype=torch.long, device=config.device)
    table, trained = weight.detach().to(frozen), weight.detach()[:1].clone().requires_grad_()

    def passes() -> None:
        with precision(config.device):
            if lora:
                loss, _ = chunked_loss(hidden, table, trained, 0, wanted, torch.full((count,), 1 / count).to(hidden))
            else:
                logits = torch.nn.functional.linear(hidden, weight).float()
                loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="none").mean()
        loss.backward()  # type: ignore[no-untyped-call]

    return _timed(passes, config.device) / (count * rows)


def recompute(model: Any) -> None:
    """Let a model compute its blocks' activations again in the backward pass instead of keeping them."""
    from gcrs.toolkit.model.adapter import unwrapped

    unwrapped(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
