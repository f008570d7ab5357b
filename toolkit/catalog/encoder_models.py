"""An encoder in memory: texts -> token vectors -> one unit vector a text, as its recipe says.

Knows nothing of names, caches or items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.catalog.encoder_files import Encoder, layer_weights
from gcrs.toolkit.catalog.encoder_recipe import NORMALISE
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import read_json
from gcrs.toolkit.model.quiet import quiet_transformers

if TYPE_CHECKING:
    import numpy as np
    import torch

_ENCODER_ONLY = {kind.lower(): f"{kind}EncoderModel" for kind in ("T5", "MT5", "UMT5", "LongT5")}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")  # torch.nn, without parameters
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError)  # transformers' own


class EncoderModel:
    """A loaded encoder in float32; DataError when its files do not load, UsageError when there is no such device."""

    def __init__(self, encoder: Encoder, device: str = "cpu") -> None:
        self.encoder, self.recipe = encoder, encoder.recipe
        from safetensors import SafetensorError

        folder = encoder.folder / self.recipe.transformer
        try:
            with quiet_transformers():
                self.tokenizer = _load_tokenizer(folder)
                self.model = _load_transformer(folder)
        except (*_LOAD_ERRORS, SafetensorError) as error:
            raise DataError(f"{folder} does not load as an encoder: {(str(error).splitlines() or [''])[0]}.") from error
        self.layers = [None if one == NORMALISE else _Linear(encoder.folder / one) for one in self.recipe.layers]
        self.device = _move([self.model, *(layer.linear for layer in self.layers if layer)], device)
        self.prefix_tokens = self._count_prefix() if self.recipe.skip_prefix and self.recipe.prefix else 0

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 [n, width]: unit vectors; zeros for a text without a token to pool."""
        import torch

        batch = self._tokenize(texts)
        out = torch.zeros(len(texts), self.recipe.width)
        rows = [row for row, ids in enumerate(batch) if ids]
        if not rows:
            return out.numpy()
        length = max(len(batch[row]) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for n, row in enumerate(rows):  # padded behind the text: right for encoders and causal models alike
            ids[n, : len(batch[row])] = torch.tensor(batch[row])
            mask[n, : len(batch[row])] = 1
        pooled_mask = self._pooled(ids, mask)
        with torch.inference_mode():
            hidden = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
            pooled = pool(hidden, pooled_mask.to(self.device), self.recipe.pooling)
            for layer in self.layers:
                pooled = layer(pooled) if layer else torch.nn.functional.normalize(pooled, dim=1)
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        if pooled.shape[1] != self.recipe.width:
            raise DataError(
                f"{self.encoder.folder} gives vectors of {pooled.shape[1]} numbers, "
                f"its config says {self.recipe.width}."
            )
        pooled = torch.where(pooled_mask.any(1, keepdim=True), pooled.float().cpu(), 0.0)
        out[rows] = pooled
        return out.numpy()

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [self.recipe.prefix + text for text in texts]
        if self.recipe.lower:
            whole = [text.lower() for text in whole]
        ids: list[list[int]] = self.tokenizer(whole, truncation=True, max_length=self.recipe.max_tokens)["input_ids"]
        return ids

    def _pooled(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mask of the tokens that are pooled."""
        if self.recipe.skip_start and self.tokenizer.bos_token_id is not None:
            mask = mask.clone()
            mask[:, 0] &= ids[:, 0] != self.tokenizer.bos_token_id
        if self.prefix_tokens:
            mask = mask.clone()
            mask[:, : self.prefix_tokens] = 0
        return mask

    def _count_prefix(self) -> int:
        """Tokens that the prefix takes at the start of a text: all of its own but the closing special one."""
        ids = self._tokenize([""])[0]
        return len(ids) - bool(ids and ids[-1] in self.tokenizer.all_special_ids)


def pool(hidden: torch.Tensor, mask: torch.Tensor, modes: Sequence[str]) -> torch.Tensor:
    """[n, width x modes] from token vectors [n, length, width] under a 0/1 mask [n, length]."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    rows = torch.arange(len(hidden), device=hidden.device)
    positions = torch.arange(mask.shape[1], device=hidden.device)
    parts = []
    for mode in modes:
        if mode in ("mean", "mean_sqrt_len_tokens"):
            count = weights.sum(1).clamp(min=1e-9)
            parts.append((hidden * weights).sum(1) / (count if mode == "mean" else count.sqrt()))
        elif mode == "weightedmean":  # a token weighs as much as its place: SGPT, Muennighoff 2022
            placed = weights * (positions + 1).view(1, -1, 1)
            parts.append((hidden * placed).sum(1) / placed.sum(1).clamp(min=1e-9))
        elif mode == "max":
            parts.append(hidden.masked_fill(weights == 0, float("-inf")).amax(1))
        elif mode == "cls":
            parts.append(hidden[rows, mask.argmax(1)])
        else:  # lasttoken
            parts.append(hidden[rows, (mask * (positions + 1)).argmax(1)])
    return torch.cat(parts, dim=1)


class _Linear:
    """A linear layer of sentence-transformers (its `Dense`): weights, bias if it has one, activation."""

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config = read_json(folder / "config.json")
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        kind = activation.rsplit(".", 1)[-1]
        inner = {config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
        if not activation.startswith("torch.nn.") or kind not in _ACTIVATIONS or inner != {"sentence_embedding"}:
            raise DataError(f"{folder} is a layer that gcrs does not have: {activation} on {', '.join(sorted(inner))}.")
        if config.get("use_residual"):
            raise DataError(f"{folder} is a layer that gcrs does not have: one with a residual connection.")
        self.activation = getattr(torch.nn, kind)()
        try:
            tensors = load_file(layer_weights(folder))
            weight, bias = tensors["linear.weight"].float(), tensors.get("linear.bias")
            self.linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            self.linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias.float()}))
        except (SafetensorError, KeyError, IndexError, RuntimeError) as error:
            raise DataError(f"{folder / 'model.safetensors'} holds no linear layer: {error}.") from error
        self.linear.eval()

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        if vectors.shape[1] != self.linear.in_features:
            raise DataError(
                f"The linear layer takes {self.linear.in_features} numbers, the pooling gives {vectors.shape[1]}."
            )
        out: torch.Tensor = self.activation(self.linear(vectors))
        return out


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        else:  # the file alone decides; a class guessed from the architecture may split otherwise
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ValueError(f"its tokenizer is broken ({(str(error).splitlines() or [''])[0]})") from error
    if tokenizer.pad_token_id is None:  # any token will do, masked as it is
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _load_transformer(folder: Path) -> Any:
    """The transformer without a head, float32, in eval mode; ValueError when weights are missing from the file."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind: Any = transformers.AutoModel
    if config.model_type in _ENCODER_ONLY:
        kind = getattr(transformers, _ENCODER_ONLY[config.model_type])
    elif config.is_encoder_decoder:
        raise ValueError(f"{config.model_type} is an encoder and a decoder, expected one of the two")
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # named below
    model, info = kind.from_pretrained(folder, config=config, dtype=torch.float32, **options)
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # the pooler is not used
    other = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    if missing or other:  # transformers would start them at random
        first, more = (missing or other)[0], len((missing or other)[1:])
        raise ValueError(f"its weights {'lack' if missing else 'have another shape in'} {first} and {more} more")
    return model.eval()


def _move(modules: list[Any], device: str) -> torch.device:
    import torch

    try:
        place = torch.device(device)
        for module in modules:
            module.to(place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The encoder cannot run on device {device!r}: {(str(error).splitlines() or [''])[0]}.",
            hint="Expected cpu, cuda, cuda:N or mps, as this machine and this torch have it.",
        ) from error
    return place
