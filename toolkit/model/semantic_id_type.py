"""SemanticIdType: "the ID of one allowed item" as an output type for Outlines.

Its processor is the ID tree's automaton, which keeps no state: beams may be reordered, batches of any size and several
threads may share one generator, and a generator may be used again. For small catalogues the same language is also
given as a regular expression over a vocabulary of the ID tokens alone: over the model's whole vocabulary an expression
would admit `<a_12>` spelled letter by letter. Knows nothing of items, prompts or search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DeadEnd, UsageError
from gcrs.toolkit.ids.codebook import spell
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.ids.tree_changes import sorted_codes
from gcrs.toolkit.model.grammar import TargetGrammar
from gcrs.toolkit.model.processor import MaskProcessor
from gcrs.toolkit.model.tokens import TokenSpace

if TYPE_CHECKING:
    from outlines.types import Regex
    from outlines_core import Index, Vocabulary

MOST_SPELLED = 20_000  # items in an expression: compiling takes about 3 s there, 90 s and 5 GB for a million


@dataclass(frozen=True)
class SemanticIdType:
    """The IDs that `tree` allows, spelled with `tokens`: `<BOI>`, one code a level, `<EOI>`."""

    tokens: TokenSpace
    tree: PrefixTree

    def processor(self, *, start: int = 0) -> MaskProcessor:
        """The logits processor; `start` ids of its input are the prompt."""
        return MaskProcessor(TargetGrammar(self.tokens, self.tree), start=start)

    def generator(self, model: Any) -> Any:
        """An `outlines.Generator` over an Outlines model that yields values of this type alone."""
        import outlines

        return outlines.Generator(model, processor=self.processor())

    def regex(self) -> Regex:
        """The type as an Outlines regular expression, one branch an item.

        Raises DeadEnd when no item is allowed, UsageError for more than `MOST_SPELLED` items.
        """
        from outlines.types import Regex

        allowed = sorted_codes(self.tree)[self.tree.allowed_rows()[self.tree.rows]]
        if not len(allowed):
            raise DeadEnd("No item is allowed, so no expression spells one.", hint="Relax a rule.")
        if len(allowed) > MOST_SPELLED:
            raise UsageError(
                f"{len(allowed):,} items are too many for a regular expression, expected at most {MOST_SPELLED:,}.",
                hint="Use the processor: it takes a million.",
            )
        return Regex(f"<BOI>({'|'.join(spell(sid) for sid in allowed.tolist())})<EOI>")

    def vocabulary(self) -> Vocabulary:
        """The tokens that spell IDs, and nothing else, as Outlines' compiler takes them."""
        from outlines_core import Vocabulary

        tokens = self.tokens
        ours = {"<BOI>": [tokens.boi], "<EOI>": [tokens.eoi]}
        ids = range(tokens.level_range(0).start, tokens.size)
        return Vocabulary(tokens.end, ours | {tokens.new_tokens[one - tokens.base_rows]: [one] for one in ids})

    def index(self) -> Index:
        """The expression compiled over that vocabulary: what Outlines' stock processors run on."""
        from outlines_core import Index

        return Index(self.regex().pattern, self.vocabulary())
