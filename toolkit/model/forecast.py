"""What a fine-tuning run will need, before anything is loaded: memory by part, time, disk.

Pure arithmetic over the base's config.json, the run's settings, what a step holds and how fast this machine was seen to
be. Knows nothing of weights, files or devices. Bytes of activations are a count of the tensors that autograd keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from gcrs.toolkit.model.head_chunks import positions_at_once

NF4 = 0.516  # bytes a weight: 4 bits, and 0.127 for the scales of double quantisation (Dettmers et al., 2023)
ALLOCATOR = {False: 0.45, True: 1.6}  # of a step's activations and logits, by bf16: measured on CPUs (docs/doctor.md)
ADAM = 12  # bytes a trained number: its gradient and two moments, fp32
LOGIT = 12  # bytes an entry: log-probabilities, their gradient, and the logits' gradient, fp32
LOGIT_BF16 = 2  # more where logits and their gradient pass through bf16


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that decide what it costs."""

    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head_dim: int
    rows: int
    tied: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shape:
        """From the language model's part of a config.json; DataError names a size that it lacks."""
        try:
            width, heads = int(settings["hidden_size"]), int(settings["num_attention_heads"])
            return cls(
                layers=int(settings["num_hidden_layers"]),
                width=width,
                inner=int(settings["intermediate_size"]),
                heads=heads,
                groups=int(settings.get("num_key_value_heads") or heads),
                head_dim=int(settings.get("head_dim") or width // heads),
                rows=int(settings["vocab_size"]),
                tied=bool(settings.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"The base's config.json lacks or garbles {error}: nothing can be forecast.") from error

    @property
    def sides(self) -> int:
        """Inputs plus outputs of the linear layers of one decoder block: a rank's parameters."""
        queries, keys = self.heads * self.head_dim, self.groups * self.head_dim
        return 2 * (self.width + queries) + 2 * (self.width + keys) + 3 * (self.width + self.inner)

    @property
    def linear(self) -> int:
        """Weights of all linear layers inside the blocks."""
        queries, keys = self.heads * self.head_dim, self.groups * self.head_dim
        return self.layers * self.width * (2 * queries + 2 * keys + 3 * self.inner)

    def table(self, new_rows: int = 0) -> int:
        """Weights of the embedding and, where it is not tied, of the head."""
        return (self.rows + new_rows) * self.width * (1 if self.tied else 2)


@dataclass(frozen=True)
class Work:
    """What a run works through: means a step, and the most that is held at once."""

    tokens: float  # padded, a step
    supervised: float  # positions with a loss, a step
    at_once: int  # padded, in one pass
    supervised_at_once: int
    length: int  # of a typical sequence
    steps: int | None = None


@dataclass(frozen=True)
class Speed:
    """Seconds, as measured on this machine: forward and backward together."""

    layer: float  # a token in a block
    head: float  # a supervised token, a row of the head
    update: float  # a trained number in the optimiser's step


def trained_numbers(shape: Shape, config: FinetuneConfig, new_rows: int) -> int:
    """How many numbers the optimiser holds moments of."""
    if config.method == "full":
        return shape.linear + shape.table(new_rows)
    return adapter_numbers(shape, config, new_rows)


def adapter_numbers(shape: Shape, config: FinetuneConfig, new_rows: int) -> int:
    """How many numbers the adapter has that ships, whatever was trained."""
    rows = new_rows + (shape.rows if config.embeddings == "all" else 0)
    return shape.layers * shape.sides * config.rank + rows * shape.width * (1 if shape.tied else 2)


def memory_parts(
    shape: Shape, config: FinetuneConfig, work: Work, new_rows: int, *, bf16: bool, validates: bool
) -> dict[str, int]:
    """Bytes by part of what training holds beside the running program; their sum is the peak.

    `bf16`: whether the device computes in it (frozen weights are then kept in it, trained ones cast to it on the way).
    On a CPU, `allocator` is what the C library and the matrix kernels held beyond the rest in measured runs
    (docs/doctor.md); on a GPU nothing is added for it.
    """
    lora = config.method == "lora"
    each = 2 if lora and bf16 else 4
    quantised = config.quantize == "4bit"
    table = shape.table(new_rows) * each
    weights = int(shape.linear * (NF4 if quantised else each)) + table
    parts = {"weights": weights + (0 if lora else 4 * shape.linear)}  # full: the start is kept, to extract the change
    trained = trained_numbers(shape, config, new_rows)
    parts["adapter"] = 4 * trained if lora else 0
    parts["optimizer"] = ADAM * trained
    kept = _kept_by_layer(shape, config, bf16)
    passed = kept + shape.layers * shape.width * each if config.recompute else shape.layers * kept
    casts = 2 * shape.linear if bf16 and not lora else 0  # autocast's bf16 copies of fp32 weights
    parts["activations"] = work.at_once * passed + casts
    parts["logits"] = _logits(shape.rows + new_rows, shape.width, config, work.supervised_at_once, bf16)
    copy = (shape.linear + shape.table(new_rows)) * (2 if bf16 else 4)
    step = parts["activations"] + parts["logits"]
    parts["validation"] = max(0, copy - step) if validates else 0  # a second model, when no step is held
    if not config.device.startswith("cuda"):
        parts["allocator"] = int(ALLOCATOR[bf16] * step) + (copy - parts["validation"] if validates else 0)
    return parts


def _logits(rows: int, width: int, config: FinetuneConfig, supervised: int, bf16: bool) -> int:
    """Bytes of the head's loss: with LoRA a chunk of positions and the gradients of all states, else everything."""
    entry = LOGIT + LOGIT_BF16 * bf16
    if config.method == "full":
        return supervised * rows * entry
    chunk = positions_at_once(rows, cuda=config.device.startswith("cuda"))
    whole = 8 * rows * width if config.embeddings == "all" else 0  # the rows' gradient, and a chunk's part of it
    return min(supervised, chunk) * rows * entry + supervised * width * (4 if bf16 else 8) + whole


def _kept_by_layer(shape: Shape, config: FinetuneConfig, bf16: bool) -> int:
    """Bytes a token that one block keeps for its backward pass; `bf16`: under bf16 autocast.

    Counted over the tensors that autograd saves. Flash attention keeps a sum a head; in bf16 on a CPU ours keeps none.
    LoRA without dropout keeps each input of linear layers once; with dropout, and over layers in 4 bits, PEFT keeps one
    for each layer's own matrix, a mask of it (fp32 on a CPU, one byte on a GPU) and the input that it left.
    """
    width, inner = shape.width, shape.inner
    queries, keys = shape.heads * shape.head_dim, shape.groups * shape.head_dim
    cuda = config.device.startswith("cuda")
    few = 8 if bf16 and not cuda else 4 * shape.heads + 8
    mask = 1 if cuda else 4
    if config.method == "full":
        if bf16:
            return 26 * width + 8 * inner + 4 * (queries + keys) + few
        return 24 * width + 16 * inner + 8 * (queries + keys) + few
    if bf16:
        kept = 12 * width + 8 * inner + 4 * (queries + keys) + 14 * config.rank + few
        if config.dropout or config.quantize == "4bit":
            kept += 6 * width + 2 * queries * cuda
        return kept + (mask * (5 * width + inner + queries) if config.dropout else 0)
    kept = 16 * width + 16 * inner + 8 * (queries + keys) + 28 * config.rank + few
    return kept + ((5 * mask + 12) * width + mask * inner + (mask + 4) * queries if config.dropout else 0)


def step_seconds(shape: Shape, config: FinetuneConfig, work: Work, new_rows: int, speed: Speed) -> float:
    """One optimiser step."""
    passes = work.tokens * shape.layers * speed.layer + work.supervised * (shape.rows + new_rows) * speed.head
    return passes + trained_numbers(shape, config, new_rows) * speed.update


def disk_bytes(shape: Shape, config: FinetuneConfig, new_rows: int, *, validates: bool) -> dict[str, int]:
    """Bytes on the disk: checkpoints (two kept, one staged), the bundle, the merged model of the first use."""
    return {
        "checkpoints": 3 * ADAM * trained_numbers(shape, config, new_rows),
        "bundle": 2 * adapter_numbers(shape, config, new_rows) * (2 if validates else 1),
        "merged": 2 * (shape.linear + shape.table(new_rows)),
    }
