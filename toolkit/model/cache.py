"""PrefixCache: a causal LM with the keys and values of what it has read, re-used as far as a prompt agrees with any.

Two ways forward: `extend` reads ids in sequence; `branch` reads nodes of a tree that grows from them, as one sequence
under a mask in which each node sees the ids and its own ancestors only, so the ids' keys and values exist once for
any number of beams. What several conversations have had read is kept side by side in a pool. Knows nothing of grammars,
items, search or threads: its owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.model.prefixes import GrowingLayer, Prefix, PrefixPool

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BRANCH_CHUNK = 256  # nodes forwarded at once: bounds the memory of activations and masks
EXTEND_CHUNK = 1024  # ids forwarded at once
JOINED = 16  # most new ids of a prompt that is read together with others
LIMIT = 2**30  # bytes of keys and values that are kept: 60 dialogues of 300 ids for the default base in float32


class PrefixCache:
    """Keys and values of `ids` in `model`, at batch size 1, and of other prefixes up to `limit` bytes in all.

    Raises DataError for ids outside the vocabulary or longer than the model's context. After any exception inside a
    forward, KeyboardInterrupt included, the prefix in use is forgotten, the others stay and the cache is usable.
    """

    def __init__(self, model: PreTrainedModel, limit: int = LIMIT) -> None:
        self.model = model
        self.pool = PrefixPool(limit)
        self.forwarded = 0  # ids read in sequence, ever
        self.branches = 0  # tree nodes read, ever
        self.decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self.device = model.device
        self.context = _context(model)
        head = model.get_output_embeddings()
        if head is None:
            raise GcrsError(f"The model {type(model).__name__} has no output head: a causal LM is needed.")
        if model.training:
            raise GcrsError("The model is in training mode, so dropout would alter what it says.", hint="Call eval().")
        self._head, self._plain = head, type(head) is torch.nn.Linear
        config = model.config.get_text_config()
        self._soft_cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        self._scale = getattr(config, "logit_scale", 1) / getattr(config, "logits_scaling", 1)  # Cohere; Granite
        _check_branching(self)

    @property
    def rows(self) -> int:
        """Rows of the output head."""
        return int(self._head.weight.shape[0])

    @property
    def ids(self) -> list[int]:
        """The ids of the prefix in use: what a tree grows from."""
        return self.pool.now.ids

    def reset(self) -> None:
        """Forget everything."""
        self.pool.clear()

    def extend(self, ids: Sequence[int]) -> torch.Tensor:
        """Read `ids` (all of the context, from its first id) and return the last one's hidden state, [1, width].

        What agrees with the ids already held is not forwarded again.
        """
        ids = list(ids)
        self._check(ids)
        with self._whole():
            self.cut(0)
            common = self.pool.select(ids)
            now = self.pool.now
            if common == len(ids) == len(now.ids) and now.last is not None:
                return now.last
            common = min(common, len(ids) - 1)
            self._crop(common)
            for start in range(common, len(ids), EXTEND_CHUNK):
                chunk = ids[start : start + EXTEND_CHUNK]
                hidden = self._forward(chunk, np.arange(start, start + len(chunk)), None)
                now.ids += chunk
            now.last = hidden[-1:].clone()
            self.pool.settle()
        self.forwarded += len(ids) - common
        return now.last

    def extend_each(self, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """`extend` of several prompts: each one's last hidden state, [1, width].

        Those of which a few ids are new are forwarded together, each over its own keys and values; numbers may differ
        from `extend`'s in the last digits. After any exception the prefixes of all of them are forgotten.
        """
        found: dict[int, torch.Tensor] = {}
        rows: list[tuple[int, Prefix, list[int]]] = []
        taken: set[Prefix] = set()
        try:
            for n, prompt in enumerate(prompts):
                ids = list(prompt)
                self._check(ids)
                self.cut(0)
                common = self.pool.select(ids)
                now = self.pool.now
                if now in taken:
                    continue  # a second prompt that goes on from the same prefix waits for the first
                if common == len(ids) == len(now.ids) and now.last is not None:
                    found[n] = now.last
                elif (common := min(common, len(ids) - 1)) > 0 and len(ids) - common <= JOINED:
                    self._crop(common)
                    rows.append((n, now, ids[common:]))
                taken.add(now)
            if len(rows) > 1:
                for (n, prefix, new), last in zip(rows, self._forward_rows(rows), strict=True):
                    prefix.ids += new
                    prefix.last = found[n] = last
                    self.forwarded += len(new)
                self.pool.grown()
        except BaseException:
            self.pool.forget([prefix for _, prefix, _ in rows])
            raise
        return [found[n] if n in found else self.extend(prompt) for n, prompt in enumerate(prompts)]

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Read `ids` from the first on, whatever is held, and return all their hidden states, [n, width].

        They are the prefix in use afterwards; everything else is forgotten, so that the numbers never depend on what
        was read before.
        """
        ids = list(ids)
        self._check(ids)
        self.reset()
        hidden = []
        with self._whole():
            now = self.pool.now
            for start in range(0, len(ids), EXTEND_CHUNK):
                chunk = ids[start : start + EXTEND_CHUNK]
                hidden.append(self._forward(chunk, np.arange(start, start + len(chunk)), None))
                now.ids += chunk
            now.last = hidden[-1][-1:].clone()
        self.forwarded += len(ids)
        return torch.cat(hidden)

    def common(self, ids: list[int]) -> int:
        """How many of the first `ids` are held."""
        return self.pool.common(ids)

    def branch(
        self, tokens: np.ndarray, depths: np.ndarray, ancestors: np.ndarray, after: np.ndarray | None = None
    ) -> torch.Tensor:
        """Forward m tree nodes that grow from the ids: hidden states [m, width].

        `tokens` int64 [m]; `depths` int64 [m], 0 = right after the ids; `ancestors` int64 [m, d]: the places of each
        node's ancestors, -1 = none. Node i of this call is at place `branched` + i; parents stand before children.
        `after` int64 [m]: how many of the ids stand before each node's tree, in place of all of them.
        """
        base = len(self.ids)
        above = np.full(len(tokens), base) if after is None else after
        if base + int(depths.max(initial=0)) >= self.context:
            raise _too_long(base + int(depths.max()) + 1, self.context)
        hidden = []
        with self._whole():
            for start in range(0, len(tokens), BRANCH_CHUNK):
                part = slice(start, start + BRANCH_CHUNK)
                count = len(tokens[part])
                sees = np.zeros((count, base + self.branched + count), dtype=bool)
                sees[:, :base] = np.arange(base) < above[part, None]
                row, column = np.nonzero(ancestors[part] >= 0)
                sees[row, base + ancestors[part][row, column]] = True
                sees[np.arange(count), base + self.branched + np.arange(count)] = True
                hidden.append(self._forward(tokens[part].tolist(), above[part] + depths[part], sees))
                self.pool.now.branched += count
            self.pool.settle()
        self.branches += len(tokens)
        return torch.cat(hidden)

    @property
    def branched(self) -> int:
        """Tree nodes held: the place of the next one, and a mark for `cut`."""
        return self.pool.now.branched

    def cut(self, mark: int) -> None:
        """Forget the tree's nodes after `mark`."""
        if mark < self.branched:
            with self._whole():
                self.pool.now.past.crop(mark - self.branched)
                self.pool.now.branched = mark

    def keep(self, tokens: Sequence[int], places: Sequence[int]) -> None:
        """Make one path of the tree part of the ids and forget the rest: its tokens and places, from depth 0 on."""
        at = len(self.ids) + torch.tensor(list(places), dtype=torch.long, device=self.device)
        with self._whole(), torch.inference_mode():
            now = self.pool.now
            for layer in now.past.layers:
                assert isinstance(layer, GrowingLayer)
                layer.pick(len(now.ids), at)
            now.ids += list(tokens)
            now.branched = 0
            now.last = None if tokens else now.last

    def logits(self, hidden: torch.Tensor, columns: np.ndarray) -> torch.Tensor:
        """Logits float32 [m, c] of hidden states [m, width] for the token ids `columns` alone.

        A slice of the head is multiplied in float32, so that bfloat16 does not tie items; the whole head in its dtype.
        Raises GcrsError when one is not a number.
        """
        with torch.inference_mode():
            if len(columns) == self.rows or not self._plain:  # a wrapped head may hold more than its weight says
                out = self._head(hidden).float()
                out = out if len(columns) == self.rows else out[:, torch.as_tensor(columns, device=self.device)]
            else:
                rows = torch.as_tensor(columns, device=self.device)
                bias = None if self._head.bias is None else self._head.bias[rows].float()
                out = torch.nn.functional.linear(hidden.float(), self._head.weight[rows].float(), bias)
            out = out * self._scale
            if self._soft_cap is not None:
                out = torch.tanh(out / self._soft_cap) * self._soft_cap
        if bool(out.isnan().any()):
            raise GcrsError("The model's output is not a number.", hint="Its weights or adapter are broken.")
        return out

    def _forward(self, ids: list[int], positions: np.ndarray, sees: np.ndarray | None) -> torch.Tensor:
        mask = None
        with torch.inference_mode():
            if sees is not None:
                dtype = self._head.weight.dtype
                mask = torch.zeros(sees.shape, dtype=dtype, device=self.device)
                mask.masked_fill_(torch.from_numpy(~sees).to(self.device), torch.finfo(dtype).min)
                mask = mask[None, None]
            out = self.decoder(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=torch.as_tensor(positions, device=self.device)[None],
                attention_mask=mask,
                past_key_values=self.pool.now.past,
                use_cache=True,
            )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden

    def _forward_rows(self, rows: Sequence[tuple[int, Prefix, list[int]]]) -> list[torch.Tensor]:
        """Hidden state [1, width] of each row's last new id; rows are padded behind to one length."""
        new, held = [ids for _, _, ids in rows], [len(prefix.ids) for _, prefix, _ in rows]
        width = max(map(len, new))
        longest = max(base + len(ids) for base, ids in zip(held, new, strict=True))
        tokens = torch.tensor([ids + ids[-1:] * (width - len(ids)) for ids in new], device=self.device)
        steps = [[min(n, len(ids) - 1) for n in range(width)] for ids in new]
        places = torch.tensor(held)[:, None] + torch.tensor(steps)
        dtype = self._head.weight.dtype
        with torch.inference_mode():
            hidden_from = torch.arange(longest)[None, None] > places[:, :, None]
            mask = torch.zeros(hidden_from.shape, dtype=dtype).masked_fill_(hidden_from, torch.finfo(dtype).min)
            out = self.decoder(
                input_ids=tokens,
                position_ids=places.to(self.device),
                attention_mask=mask[:, None].to(self.device),
                past_key_values=Prefix.joined([prefix for _, prefix, _ in rows], [len(ids) for ids in new]),
                use_cache=True,
            )
            hidden: torch.Tensor = out.last_hidden_state
            return [hidden[row, len(ids) - 1 : len(ids)].clone() for row, ids in enumerate(new)]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Forget the prefix in use when this is cut short: an interrupt may leave layers of unequal length."""
        try:
            yield
        except BaseException:
            self.pool.drop()
            raise

    def _crop(self, length: int) -> None:
        now = self.pool.now
        if length < len(now.ids):
            now.past.crop(length - len(now.ids))
            del now.ids[length:]
            now.last = None

    def _check(self, ids: list[int]) -> None:
        if not ids:
            raise DataError("The prompt is empty.", hint="It begins with a turn of encode_prompt().")
        if not 0 <= min(ids) <= max(ids) < self.rows:
            raise DataError(f"The prompt has ids {min(ids)} to {max(ids)}, the model has rows 0 to {self.rows - 1}.")
        if len(ids) > self.context:
            raise _too_long(len(ids), self.context)


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


PROVEN = frozenset(
    {"llama", "qwen2", "qwen3", "mistral", "ministral3", "olmo2", "gpt_neox"}
)  # by tests/test_engine_architectures.py


def _check_branching(cache: PrefixCache) -> None:
    """Raise GcrsError unless two branches of a tree give what two plain sequences give; skipped where proven."""
    config = cache.model.config
    if config.model_type in PROVEN and config._attn_implementation in ("sdpa", "eager"):
        return
    try:
        plain = torch.cat([cache.extend([1, 2, 3, token]) for token in (4, 5)])
        cache.extend([1, 2])
        nodes = np.array([3, 4, 5]), np.array([0, 1, 1]), np.array([[-1], [0], [0]])
        tree = cache.branch(*nodes)[1:]
        whole = cache.model(input_ids=torch.tensor([[1, 2, 3, 4]], device=cache.device)).logits[0, -1:].float()
        same = _close(cache.logits(plain[:1], np.arange(cache.rows)), whole) and _close(plain.float(), tree.float())
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise _unsupported(cache) from error
    finally:
        cache.reset()
        cache.forwarded = cache.branches = 0
    if not same:
        raise _unsupported(cache)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).norm() <= 0.05 * b.norm())  # bfloat16 is within 0.02, a sibling in sight far beyond


def _unsupported(cache: PrefixCache) -> GcrsError:
    config = cache.model.config
    return GcrsError(
        f"The architecture {config.model_type} ({config._attn_implementation} attention) does not take tree masks.",
        hint=f"Load it with attn_implementation='sdpa', or use one of: {', '.join(sorted(PROVEN))}.",
    )
