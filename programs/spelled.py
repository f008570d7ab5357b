"""Semantic IDs as they are written, `<a_1><b_2>…`: what travels through DSPy's text fields. The inverse of `spell`."""

from __future__ import annotations

import re

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.codebook import Codebook, SemanticId

_CODE = re.compile(r"<([a-z])_(\d{1,9})>")


def parse_semantic_ids(text: str, book: Codebook) -> list[SemanticId]:
    """The semantic IDs written in `text`, in order (`<a_1><b_2><a_3><b_4>` is two of two levels).

    UnknownItem when one belongs to no item, DataError when the codes do not spell whole IDs.
    """
    codes = [(ord(letter) - ord("a"), int(code)) for letter, code in _CODE.findall(text)]
    levels = book.levels
    if len(codes) % levels or any(level != n % levels for n, (level, _) in enumerate(codes)):
        raise DataError(f"{text[:80]!r} does not spell semantic IDs of {levels} levels.")
    found = [tuple(code for _, code in codes[n : n + levels]) for n in range(0, len(codes), levels)]
    for sid in found:
        book.item_id(sid)
    return found
