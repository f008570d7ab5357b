"""How an encoder's token vectors become a text's vector: pooling, prefix, length, and what follows the pooling.

Read from sentence-transformers' own description where a directory carries one (modules.json and the files that it
names), else from the family of its name, else by the architecture. Knows nothing of weights or texts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gcrs.toolkit.catalog.encoder_names import Family, family_of
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import read_json

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
NORMALISE = "normalise"
DEFAULT_TOKENS = 512  # where nothing states a length: an item's text has at most 2,000 characters
_LEGACY = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
_LEGACY |= {"mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "lasttoken": "lasttoken"}
_OFFSET_POSITIONS = ("roberta", "camembert", "mpnet", "longformer")  # their position numbers begin behind padding's


@dataclass(frozen=True)
class Recipe:
    """From a text to its vector, all but the weights. The last step of every recipe is the scaling to length one."""

    pooling: tuple[str, ...]
    """One or more of POOLINGS; several are concatenated."""
    prefix: str
    """Text before each item's."""
    max_tokens: int
    """Tokens that are read, prefix and special tokens included."""
    width: int
    """Numbers in a vector."""
    source: str
    """Where this comes from, for people."""
    transformer: str = ""
    """Folder of the transformer below the encoder's."""
    layers: tuple[str, ...] = ()
    """What follows the pooling: folders of linear layers, and "normalise"."""
    lower: bool = False
    """Whether texts are put into lower case first."""
    skip_start: bool = False
    """Whether the start-of-text token, if the tokenizer writes one, is left out of the pooling."""
    skip_prefix: bool = False
    """Whether the prefix's tokens are left out of the pooling."""

    def record(self) -> dict[str, Any]:
        """The recipe as a catalogue's settings keep it: all that decides a vector (what is as usual is left out)."""
        always = {"pooling": "+".join(self.pooling), "prefix": self.prefix, "normalise": True}
        always |= {"max_tokens": self.max_tokens, "width": self.width, "source": self.source}
        rest = {key: value for key, value in asdict(self).items() if key not in always and value}
        return {**always, **{key: list(value) if isinstance(value, tuple) else value for key, value in rest.items()}}


def read_recipe(folder: Path, name: str) -> Recipe:
    """The recipe of an encoder's directory; `name` is what it was asked by.

    Raises DataError for a description that is broken, or that asks for something that gcrs does not have.
    """
    family = family_of(name) or family_of(str(folder))
    if (folder / "modules.json").is_file():
        return _from_modules(folder, family)
    config = _object(folder / "config.json")
    pooling: tuple[str, ...] = ("mean",)
    layers: tuple[str, ...] = ()
    source, skip_start = "nothing describes this encoder: mean pooling assumed", False
    if (folder / "1_Pooling" / "config.json").is_file():
        pooling, _ = _read_pooling(folder / "1_Pooling")
        source = "1_Pooling/config.json"
    elif family:
        pooling, source = (family.pooling,), f"the {family.name} family"
    elif _is_causal(config):
        # The last token's vector predicts a next word and is no summary unless trained to be one (docs/encoders.md has
        # the numbers); the start token's is the same for every text.
        source, skip_start = "a causal language model: mean of the last layer over the text", True
    if family and family.projection:
        if not (folder / family.projection).is_dir():
            raise DataError(
                f"{folder} has no {family.projection}: {family.name} needs this linear layer behind its pooling."
            )
        layers = (family.projection,)
    return Recipe(
        pooling=pooling,
        prefix=family.prefix if family else "",
        max_tokens=_room(folder, config, family.max_tokens if family else DEFAULT_TOKENS),
        width=_width(folder, config, len(pooling), layers),
        source=source,
        layers=layers,
        skip_start=skip_start,
    )


def _from_modules(folder: Path, family: Family | None) -> Recipe:
    """The recipe that modules.json states, with the family's prefix where no prompt for documents is stated."""
    modules = read_json(folder / "modules.json")
    transformer, pooling, include_prefix, layers = None, None, True, []
    try:
        steps = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in modules]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'modules.json'} is no list of modules with a type and a path.") from error
    for kind, path in steps:
        if ".." in Path(path).parts or Path(path).is_absolute():
            raise DataError(f"{folder / 'modules.json'} names {path!r}, which lies outside its directory.")
        if kind == "Transformer" and transformer is None:
            transformer = path
        elif kind == "Pooling" and transformer is not None and pooling is None:
            pooling, include_prefix = _read_pooling(folder / path)
        elif kind == "Dense" and pooling:
            layers.append(path)
        elif kind == "Normalize" and pooling:
            layers.append(NORMALISE)
        elif kind != "Dropout":  # which does nothing outside training
            raise DataError(
                f"{folder / 'modules.json'} asks for {kind}, expected Transformer, Pooling, then Dense or Normalize."
            )
    if transformer is None or pooling is None:
        raise DataError(f"{folder / 'modules.json'} has no Transformer with a Pooling behind it.")
    while layers and layers[-1] == NORMALISE:  # every vector ends so
        layers.pop()
    inner = folder / transformer
    config, stated = _object(inner / "config.json"), _optional(inner / "sentence_bert_config.json")
    if stated.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise DataError(f"{folder} is described as a {stated['transformer_task']} model, expected a text encoder.")
    prefix, source = _stated_prefix(_optional(folder / "config_sentence_transformers.json")), "modules.json"
    if not prefix and family and family.prefix:
        prefix, source = family.prefix, f"modules.json, and the prefix of the {family.name} family"
    return Recipe(
        pooling=pooling,
        prefix=prefix,
        max_tokens=_room(inner, config, stated.get("max_seq_length")),
        width=_width(folder, config, len(pooling), layers),
        source=source,
        transformer="" if transformer == "." else transformer,
        layers=tuple(layers),
        lower=bool(stated.get("do_lower_case")),
        skip_prefix=not include_prefix,
    )


def _read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """The poolings, and whether they take in the prefix; both of sentence-transformers' spellings."""
    config = _object(folder / "config.json")
    asked = config.get("pooling_mode")
    if asked is None:
        asked = [mode for mode in POOLINGS if config.get(f"pooling_mode_{_LEGACY[mode]}")] or ["mean"]
    modes = (asked,) if isinstance(asked, str) else tuple(asked)
    for mode in modes:
        if mode not in POOLINGS:
            raise DataError(
                f"{folder / 'config.json'} asks for pooling {mode!r}, expected one of {', '.join(POOLINGS)}."
            )
    return modes, bool(config.get("include_prompt", True))


def _stated_prefix(config: dict[str, Any]) -> str:
    """What sentence-transformers would put before a document; "" when nothing is stated."""
    prompts = config.get("prompts") or {}
    for name in ("document", "passage", "corpus"):
        if prompts.get(name):
            return str(prompts[name])
    states_documents = any(name in prompts for name in ("document", "passage", "corpus"))
    return "" if states_documents else str(prompts.get(config.get("default_prompt_name")) or "")


def _room(folder: Path, config: dict[str, Any], stated: int | None) -> int:
    """Tokens that are read: as stated, else what the tokenizer says; never more than the model has positions."""
    limit = stated or _optional(folder / "tokenizer_config.json").get("model_max_length") or DEFAULT_TOKENS
    relative = "relative_attention_num_buckets" in config and "t5" in str(config.get("model_type"))
    positions = config.get("max_position_embeddings") or (None if relative else config.get("n_positions"))
    if isinstance(positions, int) and positions > 0:
        if any(kind in str(config.get("model_type")) for kind in _OFFSET_POSITIONS):
            positions -= int(config.get("pad_token_id") or 0) + 1
        limit = min(limit, positions)
    return int(min(limit, 1_000_000))


def _width(folder: Path, config: dict[str, Any], poolings: int, layers: tuple[str, ...] | list[str]) -> int:
    for layer in reversed(layers):
        if layer != NORMALISE:
            return int(_object(folder / layer / "config.json").get("out_features", 0))
    inner = {**config, **(config.get("text_config") or {})}
    for key in ("hidden_size", "d_model", "n_embd", "dim"):
        if isinstance(inner.get(key), int):
            return poolings * int(inner[key])
    raise DataError(f"{folder}: config.json states no hidden_size.")


def _is_causal(config: dict[str, Any]) -> bool:
    """Whether the architecture exists as a causal language model and not as one that sees both sides."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if config.get("is_causal") is False:
        return False
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no object, expected one in braces.")
    return value


def _optional(path: Path) -> dict[str, Any]:
    return _object(path) if path.is_file() else {}
