"""Short dialogues made from a catalogue: plain requests that are answered with an item, small talk that is not.

People in collected dialogues often answer a plain request with a question; a product should answer it. The words are
our own; items come from the catalogue's facts, and from what people mention together where dialogues exist. Knows
nothing of tokens or weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.turns import Dialogue, Turn

LIKE = (
    "I loved {a}. What should I watch next?",
    "Can you recommend something like {a}?",
    "I really enjoyed {a} and {b}, what else is good?",
    "something similar to {a} please",
    "My favourites are {a} and {b}. Any suggestions?",
    "what would you recommend to a fan of {a}?",
    "I liked {a}, {b}. what should I watch tonight?",
    "Suggest a film in the spirit of {a}.",
    "I've seen {a} already, is there anything like it?",
    "looking for something like {a} but different",
)
GENRE = (
    "Can you recommend a good {g}?",
    "I'm in the mood for {g}, what do you suggest?",
    "recommend me a {g} movie",
    "I want to watch a {g} film tonight",
    "Any good {g} movies?",
    "What is a great {g} that I should see?",
    "Hi! I am looking for {g} movies.",
    "something {g} please",
)
BOTH = (
    "Something like {a} but more {g}.",
    "I liked {a}, do you know a {g} movie for me?",
    "{a} was great. Now I would like some {g}.",
)
PLAIN = (
    "What should I watch tonight?",
    "Can you recommend a good movie?",
    "Please suggest a film.",
    "I need a movie for this evening, any ideas?",
    "Recommend me something to watch.",
    "hi, what movie do you recommend?",
    "Give me a movie recommendation.",
    "I'm bored, what should I see?",
)
PEOPLE = (
    "Do you know a good movie by {p}?",
    "I like films with {p}. What should I watch?",
    "recommend something with {p}",
)
ANSWERS = (
    "You should try {x}.",
    "How about {x}?",
    "Have you seen {x}? I think you would like it.",
    "I would recommend {x}.",
    "{x} is a great choice.",
    "Then {x} is worth watching.",
    "I think you would enjoy {x}!",
    "Maybe {x}? It is very good.",
    "{x} could be just right for you.",
    "Try {x}, many people love it.",
    "One that comes to mind is {x}.",
    "Sure! What about {x}?",
)
SMALL_TALK = (
    ("Hi there!", "Hello! What kind of movies do you like?"),
    ("hello, how are you?", "I am doing great, thanks! What are you in the mood for?"),
    ("Thank you so much, bye!", "You're welcome, enjoy the movie! Goodbye."),
    ("thanks for your help", "My pleasure! Have a nice evening."),
    ("ok, sounds good", "Great, I hope you like it!"),
    ("good morning", "Good morning! Are you looking for something to watch?"),
    ("That's funny.", "Ha, glad you think so! Is there anything else that you would like?"),
    ("Who are you?", "I am here to help you find something good to watch."),
)


def _weights(items: Sequence[str], popularity: Mapping[str, int]) -> np.ndarray:
    weights = np.asarray([(popularity.get(item, 0) + 0.5) ** 0.75 for item in items])
    return weights / weights.sum()


def request_dialogues(
    catalog: Catalog,
    count: int,
    *,
    popularity: Mapping[str, int] | None = None,
    baskets: Sequence[Sequence[str]] = (),
    genre_column: str = "genres",
    people_columns: Sequence[str] = ("directors", "cast"),
    seed: int = 0,
) -> list[Dialogue]:
    """`count` two-turn dialogues; the same arguments give the same ones.

    "Like" requests take liked items and answer from one basket (items that people mention in one dialogue); genre and
    people requests take them from the item's facts; items are drawn by popularity to the power 0.75. A catalogue
    without a kind of fact gets no request of that kind.
    """
    rng = np.random.default_rng(seed)
    popularity = popularity or {}
    ids = [item.id for item in catalog]
    everywhere = _weights(ids, popularity)
    pairs = [list(dict.fromkeys(b)) for b in baskets if len(set(b)) >= 3]

    def listed(item: str, columns: Sequence[str]) -> list[str]:
        facts = catalog[item].facts
        return [str(v) for c in columns if isinstance(value := facts.get(c), list) for v in value]

    def pick(options: Sequence[str]) -> str:
        return str(options[int(rng.integers(len(options)))])

    out: list[Dialogue] = []
    while len(out) < count:
        kind = rng.random()
        name = f"request-{len(out)}"
        if kind < 0.12:
            asked, answered = SMALL_TALK[int(rng.integers(len(SMALL_TALK)))]
            turns = (Turn("user", asked), Turn("assistant", answered, "chat"))
            out.append(Dialogue(name, turns))
            continue
        target = str(rng.choice(ids, p=everywhere))
        fields: dict[str, str] = {}
        forms: Sequence[str] = PLAIN
        if kind < 0.6 and pairs:
            basket = pairs[int(rng.integers(len(pairs)))]
            a, b, target = (str(item) for item in rng.permutation(basket)[:3])
            fields = {"a": f"<item:{a}>", "b": f"<item:{b}>"}
            genres = listed(target, [genre_column])
            forms = LIKE
            if genres and rng.random() < 0.25:
                forms, fields["g"] = BOTH, pick(genres)
        elif kind < 0.85 and (genres := listed(target, [genre_column])):
            forms, fields = GENRE, {"g": pick(genres)}
        elif kind < 0.9 and (people := listed(target, people_columns)):
            forms, fields = PEOPLE, {"p": pick(people)}
        asked = pick(forms).format(**fields)
        answer = pick(ANSWERS).format(x=f"<item:{target}>")
        out.append(Dialogue(name, (Turn("user", asked), Turn("assistant", answer, "recommend", (target,)))))
    return out
