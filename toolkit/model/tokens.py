"""TokenSpace: which token ids are words, which are our control tokens and which spell semantic IDs.

Two tokenizers in one: words go through the base's own tokenizer with special tokens spelled out as plain text, so
nothing that a person types can become control; control ids are integers computed here and enter from `encode()` and
the engine alone. Knows nothing of dialogues, items or weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.codebook import SemanticId, spell

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLE_MARKS = ("<|im_start|>", "<|im_end|>")
CONTROLS = ("<REC>", "<CHAT>", "<RESP>", "<BOI>", "<EOI>")


@dataclass(frozen=True)
class TokenSpace:
    """The extended vocabulary: the base's ids, then our tokens in a fixed order.

    `base_json` is the base tokenizer in the tokenizers library's JSON; `base_rows` the number of rows of the base's
    embedding; `codes` the codewords at each level. New ids start at `base_rows`: role marks that the base lacks,
    then `CONTROLS`, then `<a_0>`, `<a_1>`, … level by level.
    """

    base_json: str
    base_rows: int
    codes: tuple[int, ...]

    @cached_property
    def _raw(self) -> dict[str, Any]:
        raw: dict[str, Any] = json.loads(self.base_json)
        return raw

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The base's tokenizer, which spells special tokens as the plain text that they look like."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.base_json)
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def new_tokens(self) -> tuple[str, ...]:
        """Every token that we add, in id order from `base_rows`."""
        vocabulary = self.text_tokenizer.get_vocab(with_added_tokens=True)
        clash = [token for token in CONTROLS if token in vocabulary]
        if clash:
            raise DataError(f"The base tokenizer already has {clash}.", hint="Use the base model, not a gcrs bundle.")
        marks = tuple(mark for mark in ROLE_MARKS if mark not in vocabulary)
        ids = tuple(spell((0,) * level + (code,))[len(spell((0,) * level)) :] for level, k in enumerate(self.codes)
                    for code in range(k))  # fmt: skip
        return marks + CONTROLS + ids

    @cached_property
    def _id_of(self) -> dict[str, int]:
        out = {token: self.base_rows + n for n, token in enumerate(self.new_tokens)}
        for mark in ROLE_MARKS:
            if mark not in out:
                out[mark] = int(self.text_tokenizer.token_to_id(mark) or 0)
        return out

    @cached_property
    def _level_starts(self) -> tuple[int, ...]:
        start = self.base_rows + len(self.new_tokens) - sum(self.codes)
        return tuple(start + sum(self.codes[:level]) for level in range(len(self.codes)))

    @property
    def size(self) -> int:
        """Rows of the extended embedding."""
        return self.base_rows + len(self.new_tokens)

    @cached_property
    def new_ids(self) -> range:
        """Token ids of all new tokens."""
        return range(self.base_rows, self.size)

    def control(self, token: str) -> int:
        """The id of a control token or role mark by its spelling."""
        return self._id_of[token]

    @cached_property
    def rec(self) -> int:
        return self._id_of["<REC>"]

    @cached_property
    def chat(self) -> int:
        return self._id_of["<CHAT>"]

    @cached_property
    def resp(self) -> int:
        return self._id_of["<RESP>"]

    @cached_property
    def boi(self) -> int:
        return self._id_of["<BOI>"]

    @cached_property
    def eoi(self) -> int:
        return self._id_of["<EOI>"]

    @cached_property
    def end(self) -> int:
        """The mark that closes a turn, and so a reply."""
        return self._id_of["<|im_end|>"]

    @cached_property
    def bos(self) -> tuple[int, ...]:
        """The base's beginning-of-sequence token where its own post-processor adds one, else nothing."""
        tokenizer = self.text_tokenizer
        with_special = tokenizer.encode("", add_special_tokens=True).ids
        return tuple(with_special[:1])

    @cached_property
    def newline(self) -> tuple[int, ...]:
        return tuple(self.encode_text("\n"))

    def header(self, role: str) -> tuple[int, ...]:
        """Token ids that open a turn of `role`."""
        return (self._id_of["<|im_start|>"], *self.encode_text(f"{role}\n"))

    @cached_property
    def close(self) -> tuple[int, ...]:
        """Token ids that close a turn."""
        return (self.end, *self.newline)

    @cached_property
    def forbidden_in_text(self) -> frozenset[int]:
        """Ids that no text may contain: the base's special tokens and all of ours."""
        specials = {token["id"] for token in self._raw.get("added_tokens", []) if token.get("special")}
        return frozenset(specials | set(self.new_ids))

    def encode_text(self, text: str) -> list[int]:
        """Token ids of words that are data, never control. Lone surrogates become U+FFFD."""
        clean = text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
        ids: list[int] = self.text_tokenizer.encode(clean, add_special_tokens=False).ids
        if not self.forbidden_in_text.isdisjoint(ids):  # a base whose tokenizer ignores encode_special_tokens
            ids = [i for i in ids if i not in self.forbidden_in_text]
        return ids

    def decode_text(self, ids: Sequence[int]) -> str:
        """Words of text ids; our ids and the base's special ids are left out."""
        words = [i for i in ids if i not in self.forbidden_in_text and 0 <= i < self.base_rows]
        out: str = self.text_tokenizer.decode(words, skip_special_tokens=False)
        return out

    def level_range(self, level: int) -> range:
        """Token ids of the codes of a level."""
        start = self._level_starts[level]
        return range(start, start + self.codes[level])

    def sid_tokens(self, semantic_id: SemanticId) -> list[int]:
        """Token ids that spell a semantic ID, without `<BOI>` and `<EOI>`."""
        return [self._level_starts[level] + code for level, code in enumerate(semantic_id)]

    def sid_of(self, token_ids: Sequence[int]) -> SemanticId:
        """The semantic ID that these tokens spell; DataError when they do not spell one."""
        if len(token_ids) != len(self.codes):
            raise DataError(f"{len(token_ids)} tokens do not spell a semantic ID of {len(self.codes)} levels.")
        sid = tuple(token - start for token, start in zip(token_ids, self._level_starts, strict=True))
        if any(not 0 <= code < k for code, k in zip(sid, self.codes, strict=True)):
            raise DataError(f"Tokens {list(token_ids)} do not spell a semantic ID.")
        return sid

    def span(self, semantic_id: SemanticId) -> list[int]:
        """`<BOI>` + semantic ID + `<EOI>` as token ids."""
        return [self.boi, *self.sid_tokens(semantic_id), self.eoi]

    def extended_json(self) -> str:
        """The extended tokenizer (base plus our tokens, none of them special) as tokenizers JSON."""
        from tokenizers import AddedToken, Tokenizer

        tokenizer = Tokenizer.from_str(self.base_json)
        have = tokenizer.get_vocab_size(with_added_tokens=True)
        fill = [AddedToken(f"<unused_{n}>", normalized=False) for n in range(have, self.base_rows)]
        tokenizer.add_tokens(fill + [AddedToken(token, normalized=False) for token in self.new_tokens])
        out: str = tokenizer.to_str()
        return out
