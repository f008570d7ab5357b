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

from gcrs.toolkit.dialogue.shape import PRODUCT, SequenceShape
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.codebook import SemanticId, spell

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLE_MARKS = ("<|im_start|>", "<|im_end|>")
CONTROLS = ("<REC>", "<CHAT>", "<RESP>", "<BOI>", "<EOI>")
FILLER = "<gcrs_unused_{}>"  # names the rows of an embedding that is larger than its tokenizer


@dataclass(frozen=True)
class TokenSpace:
    """The extended vocabulary: the base's ids, then our tokens in a fixed order.

    `base_json` is the base tokenizer in the tokenizers library's JSON; `base_rows` the number of rows of the base's
    embedding; `codes` the codewords at each level; `shape` which decisions a sequence shows. New ids start at
    `base_rows`: role marks that the base lacks, then `CONTROLS`, then `<a_0>`, `<a_1>`, … level by level.
    """

    base_json: str
    base_rows: int
    codes: tuple[int, ...]
    shape: SequenceShape = PRODUCT

    @cached_property
    def _raw(self) -> dict[str, Any]:
        try:
            raw: dict[str, Any] = json.loads(self.base_json)
            raw["model"]["type"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"The base's tokenizer.json is no tokenizer ({type(error).__name__}: {error}).") from error
        raw["added_tokens"] = raw.get("added_tokens") or []
        return raw

    @cached_property
    def _plain_json(self) -> str:
        """The base's tokenizer without our fillers and without a space of its own before a text."""
        plain: dict[str, Any] = {part: _without_prefix_space(self._raw.get(part), part == "decoder")
                                 for part in ("normalizer", "pre_tokenizer", "decoder")}  # fmt: skip
        plain["added_tokens"] = [one for one in self._raw["added_tokens"] if one["content"] != FILLER.format(one["id"])]
        if all(self._raw.get(part) == value for part, value in plain.items()):
            return self.base_json
        return json.dumps(self._raw | plain)

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The base's tokenizer, which spells special tokens as the plain text that they look like.

        It puts no space before a text: ours come in pieces around items, and a piece must read back as it was.
        """
        tokenizer = _tokenizer(self._plain_json)
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        out: dict[str, int] = self.text_tokenizer.get_vocab(with_added_tokens=True)
        return out

    @cached_property
    def new_tokens(self) -> tuple[str, ...]:
        """Every token that we add, in id order from `base_rows`."""
        vocabulary = self._vocabulary
        if (top := max(vocabulary.values(), default=0)) >= self.base_rows:
            raise DataError(f"The base's tokenizer has ids up to {top}, its embedding {self.base_rows} rows.")
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
        marked = self.text_tokenizer.encode("a", add_special_tokens=True)
        first = next((n for n, special in enumerate(marked.special_tokens_mask) if not special), 0)
        return tuple(marked.ids[:first])

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
        """Ids that no text may contain: the base's special tokens, its rows without a token, and all of ours."""
        specials = {token["id"] for token in self._raw["added_tokens"] if token.get("special")}
        if len(self._vocabulary) < self.base_rows:
            specials |= set(range(self.base_rows)) - set(self._vocabulary.values())
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
        from tokenizers import AddedToken

        tokenizer = _tokenizer(self._plain_json)
        free = sorted(set(range(self.base_rows)) - set(self._vocabulary.values()))
        spelled = [FILLER.format(n) for n in free] + list(self.new_tokens)
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in spelled])
        wanted = [*free, *self.new_ids]
        if [tokenizer.token_to_id(token) for token in spelled] != wanted:
            raise DataError("The base's tokenizer has gaps between its ids, which cannot be filled.")
        out: str = tokenizer.to_str()
        return out


def _tokenizer(text: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise DataError(f"The base's tokenizer.json cannot be read: {error}.") from error


def with_beginning(raw: dict[str, Any], token_id: int) -> dict[str, Any]:
    """A tokenizer's JSON that puts this token before every text; unchanged where it puts one there already."""
    post = raw.get("post_processor") or {}
    templates = [part for part in (post, *post.get("processors", [])) if part.get("type") == "TemplateProcessing"]
    if any("SpecialToken" in one for template in templates for one in template["single"][:1]):
        return raw
    names = {index: token for token, index in raw["model"]["vocab"].items()}
    names |= {token["id"]: token["content"] for token in raw["added_tokens"]}
    if (name := names.get(token_id)) is None:
        raise DataError(f"The base's tokenizer has no token {token_id}, which shall begin every text.")
    mark, text = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [mark, text],
        "pair": [mark, text, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}},
    }
    return raw | {"post_processor": template}


def _without_prefix_space(part: dict[str, Any] | None, decoder: bool = False) -> dict[str, Any] | None:
    """A tokenizer's normalizer, pre-tokenizer or decoder that neither adds a space before a text nor takes one away."""
    if part is None or part.get("type") == "Prepend":
        return None
    out = dict(part)
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in out:
            out[key] = [kept for one in out[key] if (kept := _without_prefix_space(one, decoder)) is not None]
    if out["type"] == "Strip" and "start" in out:
        out["start"] = 0
    if "prepend_scheme" in out:
        out["prepend_scheme"] = "never"
    if out["type"] == "ByteLevel" and not decoder:  # a decoder ignores the flag
        out["add_prefix_space"] = False
    return out
