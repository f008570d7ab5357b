"""Toolbox: the four tools of `schema`, over a loaded bundle.

`call` takes arguments as anybody sends them and gives a result of the schema or raises a Problem; it may run in several
threads. Knows nothing of transports, and nothing of sessions that go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from gcrs.programs.one_reply import Asked, ask, reply_to
from gcrs.programs.render import clean, shown_text
from gcrs.programs.rules import Rules
from gcrs.programs.serving import schema
from gcrs.programs.serving.declared import TOOLS
from gcrs.programs.serving.problems import FIND_IDS, Problem, of_error, of_pydantic
from gcrs.programs.session_file import Decision
from gcrs.programs.why import Case, tell, why
from gcrs.toolkit.catalog.rules import parse_where
from gcrs.toolkit.catalog.search import Search
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import DeadEnd, GcrsError
from gcrs.toolkit.ids.codebook import spell
from gcrs.toolkit.model.engine import Sampling

if TYPE_CHECKING:
    from gcrs.programs.loading import Talker
    from gcrs.programs.recommender import Recommender
    from gcrs.programs.reply import Reply
    from gcrs.toolkit.catalog.item import Fact, Item
    from gcrs.toolkit.dialogue.linked import Ambiguous
    from gcrs.toolkit.dialogue.linker import Linker
    from gcrs.toolkit.model.engine import Scored

Stop = Callable[[], bool]
RUNNERS_UP = 10
MOST_CANDIDATES = 5


class Toolbox:
    """The tools over a bundle's live catalogue; `rules` hold for every call, whatever its arguments say."""

    def __init__(self, talker: Talker, rules: Rules | None = None) -> None:
        self.talker = talker
        self.rules = rules or Rules()
        self._following = threading.Lock()
        self._asking = threading.Lock()
        self._search: Search | None = None

    def newest(self) -> tuple[Recommender, Linker]:
        """Program and linker over the catalogue as it stands now."""
        with self._following:
            return self.talker.follow()

    def facts(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Fact]]:
        """The items' facts from the store."""
        if not ids:
            return {}
        with self._asking:
            return self.talker.facts.get(list(ids))

    def call(self, name: str, arguments: Any, *, stop: Stop | None = None) -> BaseModel:
        """Validate `arguments` (an object, or JSON text of one), run, give the result; Problem for what is wrong."""
        if (tool := TOOLS.get(name)) is None:
            remedy = f"The tools are {', '.join(TOOLS)}."
            raise Problem("unknown_tool", f"There is no tool {name[:60]!r}.", field="name", value=name, remedy=remedy)
        try:
            if isinstance(arguments, str):  # as OpenAI's models hand them over
                given = tool.arguments.model_validate_json(arguments or "{}")
            else:
                given = tool.arguments.model_validate({} if arguments is None else arguments)
        except ValidationError as error:
            raise of_pydantic(error) from None
        return self.run(name, given, stop=stop)

    def run(self, name: str, given: Any, *, stop: Stop | None = None) -> BaseModel:
        """Run a tool with validated arguments."""
        try:
            match name:
                case "recommend":
                    return self.recommend(given, stop=stop)
                case "search_catalog":
                    return self.search_catalog(given)
                case "lookup_item":
                    return self.lookup_item(given)
                case _:
                    return self.explain(given, stop=stop)
        except GcrsError as error:
            raise of_error(error) from None

    def recommend(self, given: schema.Recommend, *, stop: Stop | None = None, **options: Any) -> schema.Recommended:
        """The k best items and a reply; `options` go on to `Recommender.reply`."""
        recommender, asked = self._asked(given.dialogue, given.where, given.exclude)
        options.setdefault("sampling", Sampling(seed=0))
        reply = reply_to(recommender, asked, given.intent, k=given.k, stop=stop, **options)
        return self._recommended(recommender, asked, reply, given)

    def search_catalog(self, given: schema.SearchCatalog) -> schema.Found:
        """Items by words and rules; retired ones are left out."""
        recommender, _ = self.newest()
        edition = recommender.parts.edition
        rules = self.merged(recommender, given.where, ())
        try:
            allowed = rules.admitted(edition.columns)
        except DeadEnd as error:
            raise of_error(error, field="where", value=", ".join(rules.where)) from None
        search = self._search
        if search is None or search.catalog is not edition.catalog:
            search = self._search = Search(edition.catalog)
        found = [item for item in search.find(given.query, allowed) if item.id not in edition.retired]
        page = found[given.offset : given.offset + given.limit]
        facts = self.facts([item.id for item in page])
        return schema.Found(items=[self.item(recommender, item, facts) for item in page], total=len(found))

    def lookup_item(self, given: schema.LookupItem) -> schema.LookedUp:
        """One item by id or alias."""
        recommender, _ = self.newest()
        edition = recommender.parts.edition
        item = self._named(recommender, given.id, "id", titles=False)
        shown = self.item(recommender, item, self.facts([item.id]))
        retired = item.id in edition.retired
        return schema.LookedUp(**dict(shown), retired=retired, admitted=not retired and self._admits(recommender, item))

    def explain(self, given: schema.Explain, *, stop: Stop | None = None) -> schema.Explained:
        """The numbers behind an item in a dialogue; the dialogue's next reply is decided, not written."""
        recommender, asked = self._asked(given.dialogue, given.where, given.exclude)
        item = self._named(recommender, given.item, "item")
        some = bool(asked.allowed.any())
        reply = reply_to(recommender, asked, "recommend" if some else "chat", k=RUNNERS_UP, respond=False)
        case = _case(recommender, asked, reply if some else None, item.id)
        found = why(case, item.id, stop=stop)
        catalog = recommender.parts.catalog
        others = [one for one in reply.ranking if one.item_id != item.id]
        facts = self.facts([item.id, *(one.item_id for one in others)])
        return schema.Explained(
            item=self.item(recommender, item, facts),
            probabilities=schema.Probabilities(**reply.intent.probabilities),
            place=found.place,
            allowed=int(asked.allowed.sum()),
            score=found.score,
            runners_up=self.ranked(recommender, others, facts),
            neighbours=[
                schema.Neighbour(id=other, title=clean(catalog[other].label, lines=False), place=place, score=score)
                for place, other, score in found.near
            ],
            mentions=[
                schema.MovedBy(
                    id=one.item,
                    title=clean(catalog[one.item].label, lines=False),
                    score_without=one.without,
                    change=one.change,
                )
                for one in found.moved
            ],
            shared=[
                schema.SharedWith(id=one.item, title=clean(catalog[one.item].label, lines=False), facts=list(one.facts))
                for one in found.shared
            ],
            barred=found.barred,
            lines=list(tell(case, found)),
        )

    def merged(self, recommender: Recommender, where: Sequence[str], exclude: Sequence[str]) -> Rules:
        """The server's rules and the caller's; a Problem names the first of the caller's that means nothing."""
        columns = recommender.parts.edition.columns
        for n, rule in enumerate(where):
            try:
                columns.allowed([parse_where(rule)])
            except GcrsError as error:
                raise of_error(error, field=f"where[{n}]", value=rule) from None
        for n, item in enumerate(exclude):
            try:
                columns.allowed(exclude=[item])
            except GcrsError as error:
                raise of_error(error, field=f"exclude[{n}]", value=item) from None
        mine = self.rules
        return Rules((*mine.where, *where), (*mine.exclude, *exclude), mine.allow, mine.or_unknown)

    def _asked(
        self, dialogue: str | Sequence[schema.Turn], where: Sequence[str], exclude: Sequence[str]
    ) -> tuple[Recommender, Asked]:
        recommender, linker = self.newest()
        rules = self.merged(recommender, where, exclude)
        said = [schema.Turn(role="user", content=dialogue)] if isinstance(dialogue, str) else dialogue
        turns = tuple(Turn(turn.role, _encodable(turn.content)) for turn in said if turn.content.strip())
        try:
            return recommender, ask(recommender, linker, Dialogue("asked", turns), rules)
        except DeadEnd as error:
            raise of_error(error, field="where", value=", ".join(rules.spelled)) from None

    def _admits(self, recommender: Recommender, item: Item) -> bool:
        columns = recommender.parts.edition.columns
        try:
            return bool(self.rules.admitted(columns)[columns.rows([item.id])[0]])
        except DeadEnd:  # live changes may leave the server's rules without any item
            return False

    def _named(self, recommender: Recommender, name: str, field: str, *, titles: bool = True) -> Item:
        from gcrs.toolkit.catalog.nearest import nearest_item

        catalog = recommender.parts.catalog
        if name in catalog:
            return catalog[name]
        folded = name.casefold()
        found = [item for item in catalog if titles and folded in (item.label.casefold(), item.title.casefold())]
        if len(found) == 1:
            return found[0]
        near = nearest_item(catalog, name)
        remedy = near if near.startswith(("Nearest", "That is")) else FIND_IDS
        raise Problem("unknown_item", f"No item has the id {name[:60]!r}.", field=field, value=name, remedy=remedy)

    def _recommended(
        self, recommender: Recommender, asked: Asked, reply: Reply, given: schema.Recommend
    ) -> schema.Recommended:
        edition = recommender.parts.edition
        facts = self.facts([one.item_id for one in reply.ranking])
        reasons: tuple[str, ...] = ()
        if reply.targets:
            case = _case(recommender, asked, reply, reply.targets[0].item_id, given.intent, given.k)
            reasons = tell(case, why(case, reply.targets[0].item_id, moved=False))
        return schema.Recommended(
            intent=reply.intent.intent,
            forced=reply.forced,
            probabilities=schema.Probabilities(**reply.intent.probabilities),
            reply=shown_text(reply.text, edition.catalog),
            recommended=[one.item_id for one in reply.targets],
            items=self.ranked(recommender, reply.ranking, facts),
            reasons=list(reasons),
            links=self.links((link.surface, link.item) for one in asked.linked for link in one.links),
            unclear=self.unclear(name for one in asked.linked for name in one.ambiguous),
            unknown_ids=[clean(one, lines=False) for one in asked.outside],
            withheld=reply.leaks,
            dropped=reply.dropped,
            bundle=self.talker.bundle.hash,
            catalog_version=edition.version,
        )

    def links(self, found: Iterable[tuple[str, str]]) -> list[schema.Link]:
        """Titles found in somebody's words, as the schema shows them."""
        catalog = self.talker.recommender.parts.catalog
        return [
            schema.Link(words=clean(words, lines=False), id=item, title=clean(catalog[item].label, lines=False))
            for words, item in found
        ]

    def unclear(self, found: Iterable[Ambiguous]) -> list[schema.Unclear]:
        """Titles that several items have, as the schema shows them."""
        catalog = self.talker.recommender.parts.catalog
        return [
            schema.Unclear(
                words=clean(name.surface, lines=False),
                candidates=[clean(catalog[item].label, lines=False) for item in name.candidates[:MOST_CANDIDATES]],
            )
            for name in found
        ]

    def ranked(
        self, recommender: Recommender, ranking: Sequence[Scored], facts: Mapping[str, Mapping[str, Fact]]
    ) -> list[schema.RankedItem]:
        """A ranking as the schema shows it."""
        catalog = recommender.parts.catalog
        shown = [(one, self.item(recommender, catalog[one.item_id], facts)) for one in ranking]
        return [schema.RankedItem(**dict(item), score=round(one.score, 4)) for one, item in shown]

    def item(
        self, recommender: Recommender, item: Item, facts: Mapping[str, Mapping[str, Fact]] | None = None
    ) -> schema.Item:
        """An item as the schema shows it, with the facts given or else its own."""
        kept = (facts or {}).get(item.id, item.facts)
        return schema.Item(
            id=item.id,
            title=clean(item.label, lines=False),
            semantic_id=spell(recommender.parts.book.semantic_id(item.id)),
            facts=dict(kept),
        )


def _case(
    recommender: Recommender,
    asked: Asked,
    reply: Reply | None,
    item: str,
    intent: Any = "recommend",
    k: int = RUNNERS_UP,
) -> Case:
    """What an explanation of an item is drawn from, for a dialogue from elsewhere."""
    turns = asked.dialogue.turns
    mentioned = frozenset(one for turn in turns for one in turn.mentions)
    row = list(recommender.parts.book).index(item)
    return Case(
        recommender,
        asked.rules,
        k,
        asked.dialogue,
        None if reply is None else Decision.of(reply, int(asked.allowed.sum()), (), intent, ()),
        () if reply is None else tuple(one.item_id for one in reply.targets),
        tuple(dict.fromkeys(one for turn in turns if turn.role == "user" for one in turn.mentions)),
        mentioned,
        {},
        bool(asked.admitted[row]),
        len(mentioned),
    )


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no encoding has."""
    return text.encode("utf-8", "replace").decode("utf-8")
