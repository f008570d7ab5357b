"""FinetuneConfig: everything that decides a fine-tuning run: its flags, its YAML, and what lies beside its result.

Knows nothing of how a run is carried out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.base import DEFAULT_BASE


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides a fine-tuning run: its flags, its YAML and what is written beside its result."""

    catalog: Path
    """Directory written by `gcrs catalog build`."""
    out: Path
    """Directory of the bundle to write; checkpoints go to OUT.run beside it."""
    dialogues: tuple[Path, ...] = ()
    """JSON Lines files of dialogues to learn from; none: the catalogue alone is taught."""
    valid: Path | None = None
    """JSON Lines file of dialogues for validation; without it, few dialogues are validated on made requests."""
    warm_start: str | None = None
    """Bundle (directory or name) to start from, or "none"; None: `movies` with fewer than 1,000 dialogues."""
    noun: str = ""
    """What one item is called, in the singular ("board game"): used in made dialogues."""
    base: str = DEFAULT_BASE
    """Pinned name, directory, GGUF file or hub id of the base model."""
    quantize: Literal["none", "4bit"] = "none"
    """Keep the base's linear layers in 4 bits while training (QLoRA); needs bitsandbytes."""
    method: Literal["lora", "full"] = "lora"
    """Low-rank adapters, or all linear layers (shipped as an extracted low-rank adapter)."""
    rank: int = 32
    """Rank of the adapter."""
    alpha: int = 64
    """LoRA scale: alpha / rank multiplies the low-rank product."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
    lr: float = 1e-3
    """Peak learning rate of the adapter (of all weights with `full`: try 3e-4)."""
    id_lr: float = 3e-3
    """Peak learning rate of the rows of new tokens."""
    layout: Literal["dialogue", "instance"] = "dialogue"
    """Whole dialogues with loss on every reply, or the paper's instance a target."""
    item_share: float = 0.4
    """Share of the budget spent first on excerpts of the turns with items (0: none)."""
    batch_tokens: int | None = None
    """Padded tokens a step; None: 2,048, or 512 where there are fewer than 1,000 dialogues."""
    max_length: int = 768
    """Tokens a sequence."""
    steps: int | None = None
    """Budget in steps: reproducible to the byte. Neither budget: steps by what there is to learn."""
    max_minutes: float | None = None
    """Budget in minutes: promises completion, not equality."""
    warmup: int = 20
    """Steps of warm-up."""
    decay: float = 0.3
    """Share of the budget in which the learning rate falls to zero."""
    intent_weight: float = 1.0
    """Loss weight of <REC> and <CHAT>."""
    target_weight: float = 1.0
    """Loss weight of target blocks."""
    text_weight: float = 0.3
    """Loss weight of the response's words."""
    mention_weight: float = 0.2
    """Loss weight of item spans inside the response."""
    user_item_weight: float = 0.5
    """Loss weight of the items that the person mentions (0: the paper's way)."""
    made: int | None = None
    """Dialogues made from the catalogue that are mixed in; None: 12 an item with fewer than 1,000 dialogues, else 0."""
    seed: int = 0
    """Seed of everything random."""
    threads: int | None = None
    """CPU threads; None leaves torch's default."""
    device: str = "cpu"
    """cpu or cuda."""
    eval_limit: int = 150
    """Validation replies that are ranked at each validation."""
    eval_minutes: float = 20.0
    """Minutes between validations (with --steps: every tenth of the run, every third on made requests)."""
    save_minutes: float = 5.0
    """Minutes between checkpoints (with --steps: see save_steps)."""
    save_steps: int = 50
    """Steps between checkpoints when the budget is in steps."""
    extra_items: tuple[Path, ...] = field(default=())
    """Dialogue files whose message order is unreliable: used for the item excerpts alone."""
    licence: str = ""
    """Licence of the bundle, as an identifier such as cc-by-4.0: stated on its model card."""
    attribution: str = ""
    """Whom the model card credits: the makers of the data, their terms."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.max_minutes is not None:
            raise UsageError("Give the budget once.", hint="Pass either --steps N or --max-minutes M.")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps is {self.steps}, expected at least 1.")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise UsageError(f"--max-minutes is {self.max_minutes}, expected more than 0.")
        for name in ("rank", "alpha", "batch_tokens", "max_length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1.")
        if not 0 <= self.item_share < 1 or not 0 <= self.decay <= 1:
            raise UsageError("item_share and decay are shares of the run: expected 0 to 1.")
        if self.made is not None and self.made < 0:
            raise UsageError(f"made is {self.made}, expected 0 or more.")
        if not self.dialogues and self.made == 0:
            raise UsageError("There is nothing to learn from.", hint="Pass --dialogues FILE, or leave `made` out.")
        if self.quantize not in ("none", "4bit"):
            raise UsageError(f"quantize is {self.quantize!r}, expected none or 4bit.")
        if self.quantize == "4bit" and self.method == "full":
            raise UsageError(
                "4-bit weights cannot be trained themselves.", hint="Use method: lora with quantize: 4bit."
            )

    def resolved(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        plain = asdict(self)
        return {
            key: [str(v) for v in value]
            if isinstance(value, tuple)
            else str(value)
            if isinstance(value, Path)
            else value
            for key, value in plain.items()
        }

    def shareable(self) -> dict[str, Any]:
        """The config as it travels in a bundle: files and directories by name, without where they lay."""

        def short(value: Any) -> Any:
            if isinstance(value, tuple):
                return [short(one) for one in value]
            return value.name if isinstance(value, Path) else value

        plain = {name: short(value) for name, value in asdict(self).items()}
        return plain | {"base": Path(self.base).name if Path(self.base).exists() else self.base}

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> FinetuneConfig:
        """A config from YAML or flags; UsageError names an unknown field and the type that was expected."""
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise UsageError(
                f"Unknown setting {unknown[0]!r} in the fine-tuning config.", hint=f"Known: {', '.join(known)}."
            )
        clean = dict(values)
        for name in ("catalog", "out", "valid"):
            if clean.get(name) is not None:
                clean[name] = Path(clean[name])
        for name in ("dialogues", "extra_items"):
            if name in clean:
                raw = clean[name]
                clean[name] = tuple(Path(v) for v in ([raw] if isinstance(raw, str | Path) else raw or ()))
        for name, value in clean.items():
            kind = str(known[name].type)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and ("int" in kind or "float" in kind) and not number:
                raise UsageError(f"Setting {name} is {value!r}, expected a number.")
            if isinstance(value, float) and "float" not in kind and "int" in kind:
                raise UsageError(f"Setting {name} is {value!r}, expected a whole number.")
            if kind == "str" and not isinstance(value, str):
                raise UsageError(f"Setting {name} is {value!r}, expected text.")
        return cls(**clean)
