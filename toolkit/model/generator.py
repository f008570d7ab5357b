"""GcrsTransformers: our decoding behind the Outlines model interface, so that `outlines.Generator` runs all of it.

Prompts are token ids, never strings (Outlines would wrap a string in a chat template). `generate` is beam search,
`generate_stream` is sampling; both take every mask from the processor that Outlines hands in. Knows nothing of
items, intents or threads: its owner holds a lock, but where `generate_stream` gets an `ask`, which takes it itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from outlines.models.transformers import Transformers

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.cache import PrefixCache
from gcrs.toolkit.model.sampling import Sampler
from gcrs.toolkit.model.search import Hypotheses, beam_search, beam_search_along, exhaustive_search
from gcrs.toolkit.model.tokens import TokenSpace

EXHAUSTIVE_CHUNK = 256
Ask = Callable[[Sequence[int], np.ndarray], torch.Tensor]  # ids, columns -> logits float32 [1, c]


class _Vocabulary:
    """What Outlines reads of a Hugging Face tokenizer, without importing one."""

    padding_side = "left"
    pad_token = eos_token = "<|im_end|>"
    all_special_tokens = ("<|im_end|>",)

    def __init__(self, tokens: TokenSpace) -> None:
        self._tokens = tokens
        self.pad_token_id = self.eos_token_id = tokens.end

    def get_vocab(self) -> dict[str, int]:
        """Our tokens alone: a grammar compiled over words could spell `<a_12>` letter by letter."""
        return {token: self._tokens.base_rows + n for n, token in enumerate(self._tokens.new_tokens)}

    def get_chat_template(self) -> str:
        """None: raises ValueError, which tells Outlines so."""
        raise ValueError("gcrs owns its turn template.")

    def batch_decode(self, ids: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [self._tokens.decode_text([int(token) for token in row]) for row in ids]


class GcrsTransformers(Transformers):
    """An Outlines model over a PrefixCache; see `generate` and `generate_stream`."""

    def __init__(self, cache: PrefixCache, tokens: TokenSpace) -> None:
        super().__init__(cache.model, _Vocabulary(tokens))  # type: ignore[arg-type]
        self.cache = cache
        self.tokens = tokens

    def logits(self, ids: Sequence[int], columns: np.ndarray) -> torch.Tensor:
        """Logits float32 [1, c] of `columns` behind the ids."""
        return self.cache.logits(self.cache.extend(ids), columns)

    def generate(  # type: ignore[override]  # ids for prompts, not strings
        self,
        model_input: Sequence[int],
        output_type: Any = None,
        *,
        length: int,
        beams: int | Sequence[int] | None,
        along: tuple[torch.Tensor, np.ndarray] | None = None,
    ) -> Hypotheses | list[Hypotheses]:
        """The `beams` best outputs of `length` tokens after the prompt ids; None = every legal output.

        With `along` (roots and bases of `beam_search_along`) one for each place of the sequence that the cache holds.
        """
        processor = _required(output_type)
        if along is not None:
            return beam_search_along(self.cache, *along, processor, length=length, beams=beams)  # type: ignore[arg-type]
        if beams is None:
            return exhaustive_search(self.cache, model_input, processor, length=length, chunk=EXHAUSTIVE_CHUNK)
        assert isinstance(beams, int)
        return beam_search(self.cache, model_input, processor, length=length, beams=beams)

    def generate_batch(self, model_input: Any, output_type: Any = None, **_: Any) -> Any:
        """Not supported: prompts are decoded one by one, so that each re-uses the cache."""
        raise NotImplementedError("gcrs decodes prompts one by one.")

    def generate_stream(  # type: ignore[override]
        self,
        model_input: Sequence[int],
        output_type: Any = None,
        *,
        sampler: Sampler,
        stop: Callable[[], bool] | None = None,
        ask: Ask | None = None,
    ) -> Iterator[int]:
        """Sampled ids after the prompt ids, one by one, up to `<|im_end|>` (which is the last one) or `stop()`.

        `ask` stands in for `logits`: several replies may be read together.
        """
        processor = _required(output_type)
        ask = ask or self.logits
        done: list[int] = []
        while not done or done[-1] != self.tokens.end:
            if stop is not None and stop():
                return
            done.append(self._next(list(model_input), done, processor, sampler, ask))
            yield done[-1]

    def _next(self, prompt: list[int], done: list[int], processor: Any, sampler: Sampler, ask: Ask) -> int:
        ids = np.array([done], dtype=np.int64)
        if hasattr(processor, "forced") and (token := int(processor.forced(ids)[0])) >= 0:
            return token  # forwarded with the next token that has to be asked for
        columns = processor.columns(ids) if hasattr(processor, "columns") else np.arange(self.cache.rows)
        logits = processor(torch.from_numpy(ids), ask([*prompt, *done], columns))[0]
        words = [token for token in set(done) if token < self.tokens.base_rows and token != self.tokens.end]
        repeated = words if len(columns) == self.cache.rows else []
        return int(columns[sampler.pick(logits, repeated)])


def _required(processor: Any) -> Any:
    if processor is None:
        raise DataError(
            "Decoding without a processor is not supported.", hint="Use outlines.Generator(…, processor=…)."
        )
    return processor
