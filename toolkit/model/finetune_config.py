"""FinetuneConfig: everything that decides a fine-tuning run: its flags, its YAML, and what lies beside its result.

Knows nothing of how a run is carried out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gcrs.toolkit.dialogue.shape import SequenceShape
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.base import DEFAULT_BASE
from gcrs.toolkit.typed_settings import Range, typed

COUNT, SOME, RATE = Range(1), Range(0, least_open=True), Range(0)
RANGES = {
    **dict.fromkeys(("rank", "alpha", "batch_tokens", "batch_sequences", "micro_tokens", "max_length"), COUNT),
    **dict.fromkeys(("steps", "tokens", "threads", "eval_limit", "save_steps"), COUNT),
    **dict.fromkeys(("max_minutes", "eval_minutes", "save_minutes"), SOME),
    **dict.fromkeys(("lr", "id_lr", "warmup", "made", "seed"), RATE),
    **dict.fromkeys((f"{part}_weight" for part in ("intent", "target", "text", "mention", "user_item")), RATE),
    **dict.fromkeys(("dropout", "item_share"), Range(0, 1, most_open=True)),
    "decay": Range(0, 1),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides a fine-tuning run: its flags, its YAML and what is written beside its result."""

    catalog: Path
    """Directory written by `gcrs catalog build`, or a bundle (directory or name)."""
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
    dropout: float = 0.0
    """Dropout on the adapter's input (the paper: 0.05). On a CPU drawing it takes up to 40 % of a step."""
    lr: float = 1e-3
    """Peak learning rate of the adapter (of all weights with `full`: try 3e-4)."""
    id_lr: float = 3e-3
    """Peak learning rate of the rows of new tokens."""
    id_init: Literal["words", "random"] = "words"
    """Where the rows of new tokens start: the words of the items that share a code, or noise of the same length."""
    embeddings: Literal["new", "all"] = "new"
    """Ablation: all trains every token's row, at id_lr. The bundle grows by the embedding; no run starts from it."""
    layout: Literal["dialogue", "instance"] = "dialogue"
    """Whole dialogues with loss on every reply, or the paper's instance a target."""
    decisions: Literal["all", "intent", "none"] = "all"
    """Ablation: what a reply declares before its words. Other than all: only `gcrs eval` reads the bundle."""
    past_decisions: bool = True
    """Ablation: false hides earlier replies' decisions; needs layout instance. Only `gcrs eval` reads the bundle."""
    titles: bool = False
    """Show an item's title before its ID where the person mentions it."""
    item_share: float = 0.4
    """Share of the budget spent first on excerpts of the turns with items (0: none)."""
    batch_tokens: int | None = None
    """Padded tokens a step; None: 2,048, or 512 where there are fewer than 1,000 dialogues."""
    batch_sequences: int | None = None
    """Sequences a step, drawn at random, in place of batch_tokens (the paper's way)."""
    micro_tokens: int | None = None
    """Padded tokens forwarded at once; None: the whole batch. The step's gradient stays, memory shrinks."""
    recompute: bool = False
    """Compute activations a second time instead of keeping them (gradient checkpointing): slower, far smaller."""
    max_length: int = 768
    """Tokens a sequence."""
    steps: int | None = None
    """Budget in steps: reproducible to the byte. Neither budget: steps by what there is to learn."""
    max_minutes: float | None = None
    """Budget in minutes: promises completion, not equality."""
    tokens: int | None = None
    """Budget in tokens of the sequences read, without padding: reproducible to the byte. A mixture may bring it."""
    warmup: int = 20
    """Steps of warm-up."""
    decay: float = 0.3
    """Share of the budget in which the learning rate falls to zero."""
    intent_weight: float = 1.0
    """Loss weight of <REC> and <CHAT>."""
    target_weight: float = 1.0
    """Loss weight of target blocks."""
    text_weight: float | None = None
    """Loss weight of the response's words; None: 0.3, with a mixture 1."""
    mention_weight: float | None = None
    """Loss weight of item spans inside the response; None: 0.2, with a mixture 1."""
    user_item_weight: float | None = None
    """Loss weight of the items that the person mentions (0: the paper's way); None: 0.5, with a mixture 1."""
    mixture: Path | None = None
    """YAML of shares by task (docs/mixture.md), in place of item_share and made."""
    ratings: tuple[Path, ...] = ()
    """CSV files of user,item,rating: what the task ratings-to-id draws from."""
    chat: tuple[Path, ...] = ()
    """JSON Lines files of talk without items: what the task chat draws from."""
    made: int | None = None
    """Dialogues made from the catalogue that are mixed in; None: 12 an item with fewer than 1,000 dialogues, else 0."""
    seed: int = 0
    """Seed of everything random."""
    threads: int | None = None
    """CPU threads; None leaves torch's default."""
    device: str = "cpu"
    """cpu or cuda."""
    memory_check: Literal["stop", "warn", "off"] = "stop"
    """When the memory forecast does not fit what is free: stop before loading, say so, or do not look."""
    eval_limit: int = 150
    """Validation replies that are ranked at each validation."""
    eval_minutes: float = 20.0
    """Minutes between validations (with --steps: ten times a run, three on made requests, 20 steps apart)."""
    save_minutes: float = 5.0
    """Minutes between checkpoints (with --steps also: see save_steps)."""
    save_steps: int = 50
    """Steps between checkpoints when the budget is in steps, beside save_minutes."""
    extra_items: tuple[Path, ...] = field(default=())
    """Dialogue files whose message order is unreliable: used for the item excerpts alone."""
    licence: str = ""
    """Licence of the bundle, as an identifier such as cc-by-4.0: stated on its model card."""
    attribution: str = ""
    """Whom the model card credits: the makers of the data, their terms."""

    def __post_init__(self) -> None:
        typed(type(self), vars(self), RANGES)
        if sum(budget is not None for budget in (self.steps, self.max_minutes, self.tokens)) > 1:
            raise UsageError("Give the budget once.", hint="Pass --steps N, --max-minutes M or --set tokens=T.")
        if self.batch_tokens is not None and self.batch_sequences is not None:
            raise UsageError("Give the batch once.", hint="Set either batch_tokens or batch_sequences.")
        if self.mixture is None and (self.ratings or self.chat):
            raise UsageError(
                "Ratings and plain talk are drawn by the tasks of a mixture alone.", hint="Pass --mixture YAML."
            )
        if not self.dialogues and self.made == 0 and self.mixture is None:
            raise UsageError("There is nothing to learn from.", hint="Pass --dialogues FILE, or leave `made` out.")
        if self.decisions != "all" and (self.item_share or self.made or self.mixture):
            raise UsageError(
                f"decisions: {self.decisions} learns from whole dialogues alone.",
                hint="Set item_share: 0 and made: 0, and leave out the mixture.",
            )
        if not self.past_decisions and self.layout != "instance":
            raise UsageError(
                "past_decisions: false needs layout: instance.", hint="Within a whole dialogue each reply is also past."
            )
        if self.embeddings == "all" and self.method == "full":
            raise UsageError("embeddings: all goes with an adapter.", hint="Use method: lora.")
        if self.quantize == "4bit" and self.method == "full":
            raise UsageError(
                "4-bit weights cannot be trained themselves.", hint="Use method: lora with quantize: 4bit."
            )

    @property
    def shape(self) -> SequenceShape:
        """The shape of the sequences that are trained on."""
        return SequenceShape(self.decisions, self.past_decisions, self.titles)

    def loss_weights(self) -> dict[str, float]:
        """Loss weight by part of a sequence. A mixture says by its shares what counts: its tokens are alike."""
        usual = {"text": 0.3, "mention": 0.2, "user_item": 0.5}
        out = {"intent": self.intent_weight, "target": self.target_weight}
        for part, weight in usual.items():
            asked: float | None = getattr(self, f"{part}_weight")
            out[part] = asked if asked is not None else weight if self.mixture is None else 1.0
        return out

    def resolved(self) -> dict[str, Any]:
        """The config as plain JSON values, loss weights as they are used."""
        plain = asdict(self) | {f"{part}_weight": weight for part, weight in self.loss_weights().items()}
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

        weights = {f"{part}_weight": weight for part, weight in self.loss_weights().items()}
        plain = {name: short(value) for name, value in (asdict(self) | weights).items()}
        started = self.warm_start and Path(self.warm_start).name
        return plain | {"base": Path(self.base).name if Path(self.base).exists() else self.base, "warm_start": started}

    def deciding(self) -> dict[str, Any]:
        """The resolved settings that decide the result, for a run's fingerprint: one that came later counts when used.

        So a run that began under an earlier gcrs can still be resumed.
        """
        later: dict[str, Any] = {"batch_sequences": None, "micro_tokens": None, "recompute": False}
        later |= {"memory_check": self.memory_check, "mixture": None, "tokens": None, "ratings": [], "chat": []}
        later |= {"titles": False, "embeddings": "new"}
        return {name: value for name, value in self.resolved().items() if name not in later or value != later[name]}

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> FinetuneConfig:
        """A config from YAML or flags; UsageError names what is unknown, of the wrong kind or out of range."""
        return cls(**typed(cls, values, RANGES))
