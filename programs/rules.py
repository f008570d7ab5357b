"""Rules: everything that limits what may be recommended for a whole session or request, as one value.

Knows nothing of what was said: what was mentioned, given or judged is the session's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcrs.toolkit.catalog.rules import Predicate, parse_where
from gcrs.toolkit.errors import DataError, DeadEnd

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.catalog.allow_list import AllowList
    from gcrs.toolkit.catalog.filters import Columns
    from gcrs.toolkit.live import Edition


@dataclass(frozen=True)
class Rules:
    """Rules as typed, excluded ids, a list of the only ids, and whether a missing value may satisfy a rule."""

    where: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow: AllowList | None = None
    or_unknown: bool = False

    def admitted(self, columns: Columns) -> np.ndarray:
        """Bool [n], in catalogue order: what may be recommended.

        Raises UsageError and DataError for a rule, UnknownItem for an exclusion, DataError when no id of the list is
        in the catalogue, DeadEnd when nothing is left.
        """
        rules = [parse_where(rule) for rule in self.where]
        ids = self.allow.ids if self.allow else None
        mask = columns.allowed(rules, self.exclude, allow=ids, or_unknown=self.or_unknown)
        if not mask.any():
            raise self._nothing(columns)
        return mask

    def offered(self, edition: Edition) -> np.ndarray:
        """Bool [items in the codebook's order]: what the rules admit and the catalogue still offers.

        Raises what `admitted` raises.
        """
        mask = self.admitted(edition.columns)[edition.rows]
        return mask if edition.offered is None else mask & edition.offered

    def unknown(self, columns: Columns) -> tuple[str, ...]:
        """The ids of the list that the catalogue does not have; they are passed over."""
        if self.allow is None:
            return ()
        return tuple(
            one for one, row in zip(self.allow.ids, columns.rows(self.allow.ids).tolist(), strict=True) if row < 0
        )

    @property
    def spelled(self) -> tuple[str, ...]:
        """The rules in words, without the exclusions."""
        parts = list(self.where)
        if self.or_unknown and self.where:
            parts.append("missing values admitted")
        if self.allow:
            parts.append(f"only the ids in {self.allow.path.name}")
        return tuple(parts)

    def _nothing(self, columns: Columns) -> DataError | DeadEnd:
        """Names the list of which nothing is in the catalogue, or the rule that alone leaves nothing, if one does."""
        if self.allow and (columns.rows(self.allow.ids) < 0).all():
            return DataError(
                f"None of the {len(self.allow.ids):,} ids in {self.allow.path} is in the catalogue.",
                hint=f"The first is {self.allow.ids[0][:40]!r}, the catalogue's is {columns.catalog.items[0].id!r}."
                if len(columns.catalog)
                else None,
            )
        for text in self.where:
            rule = parse_where(text)
            if columns.allowed([rule], or_unknown=self.or_unknown).any():
                continue
            column = columns.resolve(rule.column) if isinstance(rule, Predicate) else ""
            hint = f"{column} holds {columns.values_near(rule)}." if isinstance(rule, Predicate) else "Relax it."
            return DeadEnd(f"Nothing is left to recommend: no item satisfies {text!r}.", hint=hint)
        every = [f"satisfies {text!r}" for text in self.where]
        every += [f"is listed in {self.allow.path.name}"] if self.allow else []
        every += (
            [f"is none of the {len(self.exclude):,} excluded" if len(self.exclude) > 1 else "is not excluded"]
            if self.exclude
            else []
        )
        return DeadEnd(f"Nothing is left to recommend: no item {' and '.join(every)}.", hint="Relax one of these.")
