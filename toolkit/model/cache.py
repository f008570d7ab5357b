"""PrefixCache: a causal LM with the keys and values of the ids that it has read, re-used as far as a prompt agrees.

Two ways forward: `extend` reads ids in sequence; `branch` reads nodes of a tree that grows from them, as one sequence
under a mask in which each node sees the ids and its own ancestors only, so the ids' keys and values exist once for
any number of beams. Knows nothing of grammars, items, search or threads: its owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gcrs.toolkit.errors import DataError, GcrsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BRANCH_CHUNK = 256  # nodes forwarded at once: bounds the memory of activations and masks
EXTEND_CHUNK = 1024  # ids forwarded at once


@dataclass
class Counts:
    """Tokens forwarded through the model: in sequence, as tree nodes; and those spared by re-use."""

    extended: int = 0
    branched: int = 0
    reused: int = 0


class PrefixCache:
    """Keys and values of `ids` in `model`, at batch size 1.

    Raises DataError for ids outside the vocabulary or longer than the model's context. After any exception inside a
    forward, KeyboardInterrupt included, the cache is empty and usable.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.counts = Counts()
        self.decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self.device = model.device
        self.context = _context(model)
        head = model.get_output_embeddings()
        if head is None:
            raise GcrsError(f"The model {type(model).__name__} has no output head: a causal LM is needed.")
        self._weight, self._bias = head.weight, getattr(head, "bias", None)
        self._soft_cap = getattr(model.config, "final_logit_softcapping", None)
        self.reset()
        _check_branching(self)

    @property
    def rows(self) -> int:
        """Rows of the output head."""
        return int(self._weight.shape[0])

    def reset(self) -> None:
        """Forget everything."""
        from transformers import DynamicCache

        self.ids: list[int] = []
        self._past = DynamicCache()
        self._last: torch.Tensor | None = None  # hidden state of the last id [1, width]
        self._branched = 0

    def extend(self, ids: Sequence[int]) -> torch.Tensor:
        """Read `ids` (all of the context, from its first id) and return the last one's hidden state, [1, width].

        What agrees with the ids already held is not forwarded again.
        """
        ids = list(ids)
        self._check(ids)
        self.cut(0)
        common = _common(self.ids, ids)
        if common == len(ids) == len(self.ids) and self._last is not None:
            self.counts.reused += common
            return self._last
        common = min(common, len(ids) - 1)
        self._crop(common)
        self.counts.reused += common
        self.counts.extended += len(ids) - common
        for start in range(common, len(ids), EXTEND_CHUNK):
            chunk = ids[start : start + EXTEND_CHUNK]
            hidden = self._forward(chunk, np.arange(start, start + len(chunk)), None)
            self.ids += chunk
        self._last = hidden[-1:].clone()
        return self._last

    def branch(self, tokens: np.ndarray, depths: np.ndarray, ancestors: np.ndarray) -> torch.Tensor:
        """Forward m tree nodes that grow from the ids: hidden states [m, width].

        `tokens` int64 [m]; `depths` int64 [m], 0 = right after the ids; `ancestors` int64 [m, d]: the places of each
        node's ancestors, -1 = none. Node i of this call is at place `branched` + i; parents stand before children.
        """
        base = len(self.ids)
        if base + int(depths.max(initial=0)) >= self.context:
            raise _too_long(base + int(depths.max()) + 1, self.context)
        hidden = []
        for start in range(0, len(tokens), BRANCH_CHUNK):
            part = slice(start, start + BRANCH_CHUNK)
            count = len(tokens[part])
            total = base + self._branched + count
            sees = np.zeros((count, total), dtype=bool)
            sees[:, :base] = True
            row, column = np.nonzero(ancestors[part] >= 0)
            sees[row, base + ancestors[part][row, column]] = True
            sees[np.arange(count), base + self._branched + np.arange(count)] = True
            hidden.append(self._forward(tokens[part].tolist(), base + depths[part], sees))
            self._branched += count
            self.counts.branched += count
        return torch.cat(hidden)

    @property
    def branched(self) -> int:
        """Tree nodes held: the place of the next one, and a mark for `cut`."""
        return self._branched

    def cut(self, mark: int) -> None:
        """Forget the tree's nodes after `mark`."""
        if mark < self._branched:
            self._past.crop(mark - self._branched)
            self._branched = mark

    def keep(self, tokens: Sequence[int], places: Sequence[int]) -> None:
        """Make one path of the tree part of the ids: its tokens and their places, in order from depth 0.

        Each of them must have been forwarded by `branch` since the last `extend`.
        """
        base = len(self.ids)
        at = torch.tensor([*range(base), *(base + place for place in places)], device=self.device)
        for layer in self._past.layers:
            layer.keys, layer.values = layer.keys[..., at, :], layer.values[..., at, :]
        self.ids += list(tokens)
        self._branched = 0
        self._last = None if tokens else self._last

    def logits(self, hidden: torch.Tensor, columns: np.ndarray) -> torch.Tensor:
        """Logits float32 [m, c] of hidden states [m, width] for the token ids `columns` alone.

        A slice of the head is multiplied in float32, so that bfloat16 does not tie items; the whole head in its dtype.
        """
        with torch.inference_mode():
            if len(columns) == self.rows:
                out = torch.nn.functional.linear(hidden, self._weight, self._bias).float()
            else:
                rows = torch.as_tensor(columns, device=self.device)
                bias = None if self._bias is None else self._bias[rows].float()
                out = torch.nn.functional.linear(hidden.float(), self._weight[rows].float(), bias)
            return out if self._soft_cap is None else torch.tanh(out / self._soft_cap) * self._soft_cap

    def _forward(self, ids: list[int], positions: np.ndarray, sees: np.ndarray | None) -> torch.Tensor:
        mask = None
        try:
            with torch.inference_mode():
                if sees is not None:
                    dtype = self._weight.dtype
                    mask = torch.zeros(sees.shape, dtype=dtype, device=self.device)
                    mask.masked_fill_(torch.from_numpy(~sees).to(self.device), torch.finfo(dtype).min)
                    mask = mask[None, None]
                out = self.decoder(
                    input_ids=torch.tensor([ids], device=self.device),
                    position_ids=torch.as_tensor(positions, device=self.device)[None],
                    attention_mask=mask,
                    past_key_values=self._past,
                    use_cache=True,
                )
        except BaseException:  # an interrupt too leaves layers of unequal length
            self.reset()
            raise
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden

    def _crop(self, length: int) -> None:
        if length < len(self.ids):
            self._past.crop(length - len(self.ids))
            del self.ids[length:]
            self._last = None

    def _check(self, ids: list[int]) -> None:
        if not ids:
            raise DataError("The prompt is empty.", hint="It begins with a turn of encode_prompt().")
        if not 0 <= min(ids) <= max(ids) < self.rows:
            raise DataError(f"The prompt has ids {min(ids)} to {max(ids)}, the model has rows 0 to {self.rows - 1}.")
        if len(ids) > self.context:
            raise _too_long(len(ids), self.context)


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    return next(n for n in range(shorter) if a[n] != b[n])


def _too_long(length: int, context: int) -> DataError:
    return DataError(f"The dialogue has {length} tokens, the model reads {context}.", hint="Drop its oldest turns.")


def _context(model: Any) -> int:
    """Ids that the model can attend to. A sliding window counts as the end: the tree's mask does not slide."""
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None)]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    known = [int(limit) for limit in limits if limit]
    return min(known) if known else 2**31


PROVEN = frozenset({"llama", "qwen2", "qwen3", "mistral", "olmo2", "gpt_neox"})  # by tests/test_engine_architectures.py


def _check_branching(cache: PrefixCache) -> None:
    """Raise GcrsError unless a tree of two branches gives what two plain sequences give; skipped where tests prove it."""
    config = cache.model.config
    if config.model_type in PROVEN and config._attn_implementation in ("sdpa", "eager"):
        return
    try:
        plain = torch.cat([cache.extend([1, 2, 3, token]) for token in (4, 5)])
        cache.extend([1, 2])
        nodes = np.array([3, 4, 5]), np.array([0, 1, 1]), np.array([[-1], [0], [0]])
        tree = cache.branch(*nodes)[1:]
        whole = cache.model(input_ids=torch.tensor([[1, 2, 3, 4]], device=cache.device)).logits[0, -1:].float()
        same_head = torch.allclose(cache.logits(plain[:1], np.arange(cache.rows)), whole, rtol=0.05, atol=0.05)
        same = torch.allclose(plain.float(), tree.float(), rtol=0.05, atol=0.05) and same_head
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise _unsupported(cache) from error
    finally:
        cache.reset()
        cache.counts = Counts()
    if not same:
        raise _unsupported(cache)


def _unsupported(cache: PrefixCache) -> GcrsError:
    config = cache.model.config
    return GcrsError(
        f"The architecture {config.model_type} ({config._attn_implementation} attention) does not take tree masks.",
        hint=f"Load it with attn_implementation='sdpa', or use one of: {', '.join(sorted(PROVEN))}.",
    )
