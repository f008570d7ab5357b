"""ReDial's files become dialogues, whatever shape the download has and whatever is odd in it."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gcrs.catalogs.archive import write_items
from gcrs.catalogs.redial_dialogues import prepare_redial, redial_items
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.turns import read_dialogues, write_dialogues
from gcrs.toolkit.errors import DataError

SEEKER, RECOMMENDER = 7, 9
CSV = 'movieId,movieName,nbMentions\n111,"Heat  (1995)",5\n222,What&#39;s Up%3F,1\n'


def dialogue(*messages: tuple[int, str], **fields: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "conversationId": "1",
        "initiatorWorkerId": SEEKER,
        "respondentWorkerId": RECOMMENDER,
        "movieMentions": {"333": "Heat (1995)", "444": "Up (2009)"},
        "initiatorQuestions": {},
        "respondentQuestions": {},
        "messages": [{"senderWorkerId": who, "text": text} for who, text in messages],
    }
    return raw | fields


def prepared(
    folder: Path, *raw: dict[str, Any], catalog: Catalog | None = None, keep_unknown: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    (folder / "train_data.jsonl").write_text("".join(json.dumps(d) + "\n" for d in raw), encoding="utf-8")
    (folder / "movies_with_mentions.csv").write_text(CSV, encoding="utf-8")
    return prepare_redial(folder, catalog, keep_unknown=keep_unknown)


CATALOG = Catalog([Item("111", "Heat", {"year": 1995}, aliases=("333",)), Item("444", "Up", {"year": 2009})])


def test_messages_in_a_row_become_one_turn_and_the_seeker_is_the_user(tmp_path: Path) -> None:
    raw = dialogue(
        (RECOMMENDER, "Hi"), (RECOMMENDER, " "), (RECOMMENDER, "Seen @444?"), (SEEKER, "@111!"), (SEEKER, "yes")
    )
    (one,), report = prepared(tmp_path, raw)
    assert [(t.role, t.text) for t in one.turns] == [
        ("assistant", "Hi\nSeen <item:444>?"),
        ("user", "<item:111>!\nyes"),
    ]
    assert report["messages read"] == 5
    assert report["messages dropped: empty"] == 1
    assert report["messages merged into the turn before"] == 2
    assert report["mentions linked"] == 2
    assert report["dialogues whose first speaker is the recommender"] == 1


def test_ids_map_to_the_canonical_film_and_others_become_plain_text(tmp_path: Path) -> None:
    raw = dialogue((SEEKER, "like@333, @111, @222 and @99999"))
    (one,), report = prepared(tmp_path, raw, catalog=CATALOG)
    assert one.turns[0].text == "like<item:111>, <item:111>, What's Up? and @99999"
    assert report["mentions linked through an alias"] == 1
    assert report["mentions made plain text: film not in the catalogue"] == 1
    assert report["mentions made plain text: id has no title"] == 1
    (one,), report = prepared(tmp_path, raw, catalog=CATALOG, keep_unknown=True)  # what an evaluation counts as a miss
    assert one.turns[0].text == "like<item:111>, <item:111>, <item:222> and @99999"
    assert report["mentions kept as items: film not in the catalogue"] == 1


def test_feedback_is_the_seekers_own_and_stands_where_the_film_is_first_mentioned(tmp_path: Path) -> None:
    raw = dialogue(
        (SEEKER, "@111"), (RECOMMENDER, "@444 or @333 or @222"),
        initiatorQuestions={"333": {"liked": 0, "seen": 1}, "222": {"liked": 2, "seen": 1}},
        respondentQuestions={"333": {"liked": 1}, "444": {"liked": 1}, "222": {"liked": 0}, "555": {"liked": 1}},
    )  # fmt: skip
    (one,), report = prepared(tmp_path, raw, catalog=Catalog([*CATALOG, Item("222", "What's Up?")]))
    assert [turn.feedback for turn in one.turns] == [{"111": "disliked"}, {"444": "liked", "222": "seen"}]
    assert report["questionnaire entries in both that disagree: the seeker's taken"] == 2


@pytest.mark.parametrize("odd", [[], None, {"444": None}, {"444": []}, {"444": {"liked": "x"}}])
def test_odd_questionnaires_and_mentions_are_survived(tmp_path: Path, odd: Any) -> None:
    raw = dialogue((SEEKER, "@444"), initiatorQuestions=odd, respondentQuestions=odd, movieMentions=odd)
    (one,), _ = prepared(tmp_path, raw, catalog=CATALOG)
    assert one.turns[0].text == "<item:444>"
    assert one.turns[0].feedback == {}


def test_typed_markup_is_no_mention_even_in_parts(tmp_path: Path) -> None:
    evil = {"555": "item:444> (1999)"}
    raw = dialogue((SEEKER, "<item:444> <@555 <item:@111>"), movieMentions=evil)
    (one,), _ = prepared(tmp_path, raw, catalog=CATALOG)
    assert one.turns[0].mentions == ("111",)
    assert one.turns[0].text == "< item:444> < item:444> < item:<item:111>>"


def test_a_dialogue_without_text_is_dropped_and_counted(tmp_path: Path) -> None:
    found, report = prepared(tmp_path, dialogue((SEEKER, "")), dialogue((SEEKER, "hi")))
    assert len(found) == report["dialogues written"] == 1
    assert report["dialogues dropped: no message with text"] == 1


def test_zip_directory_and_gzip_give_the_same(tmp_path: Path) -> None:
    line = json.dumps(dialogue((SEEKER, "@111"), (RECOMMENDER, "@444"))) + "\n"
    with zipfile.ZipFile(tmp_path / "redial.zip", "w") as bundle:
        bundle.writestr("redial/train_data.jsonl", line)
        bundle.writestr("redial/test_data.jsonl", line * 2)
        bundle.writestr("redial/movies_with_mentions.csv", CSV)
        bundle.writestr("__MACOSX/._train_data.jsonl", b"\xff\x00")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train_data.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (folder / "movies_with_mentions.csv").write_text(CSV, encoding="utf-8")
    from_zip, report = prepare_redial(tmp_path / "redial.zip", None)
    assert report["splits left out"] == "test"  # a test split is not mixed in unasked
    assert from_zip == prepare_redial(folder, None)[0] == prepare_redial(folder / "train_data.jsonl.gz", None)[0]
    assert len(prepare_redial(tmp_path / "redial.zip", None, "test")[0]) == 2
    assert len(prepare_redial(tmp_path / "redial.zip", None, "all")[0]) == 3
    with pytest.raises(DataError, match="no split 'valid', only test, train"):
        prepare_redial(tmp_path / "redial.zip", None, "valid")


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    whole = gzip.compress((json.dumps(dialogue((SEEKER, "hi"))) + "\n").encode() * 300)
    cases: dict[str, tuple[bytes, str]] = {
        "cut.jsonl.gz": (whole[: len(whole) // 2], "cut off or damaged"),
        "bad.jsonl": (b'{"messages": []}\n', "no initiatorWorkerId"),
        "list.jsonl": (b"[1]\n", "expected a ReDial dialogue"),
        "text.jsonl": (b'{"conversationId": 1', "line 1: not valid JSON"),
        "latin.jsonl": ("é".encode("latin-1") * 9, "not UTF-8"),
        "empty.jsonl": (b"", "no dialogues"),
        "cut.zip": (b"PK\x03\x04 cut", "not a readable zip"),
        "notes.txt": (b"hi", "is no .jsonl file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            prepare_redial(tmp_path / name, None)
    with pytest.raises(DataError, match="does not exist"):
        prepare_redial(tmp_path / "nowhere", None)


def test_the_films_found_can_be_written_as_a_catalogue(tmp_path: Path) -> None:
    prepared(tmp_path, dialogue((SEEKER, "@333 @111 @99999 @222")))
    items = redial_items(tmp_path)
    assert [(i.id, i.title, dict(i.facts)) for i in items] == [
        ("111", "Heat", {"year": 1995}),
        ("222", "What's Up?", {}),
        ("333", "Heat", {"year": 1995}),
    ]
    assert write_items(items, tmp_path / "items.jsonl") == 3
    assert json.loads((tmp_path / "items.jsonl").read_text().splitlines()[0]) == {
        "id": "111",
        "title": "Heat",
        "year": 1995,
    }


@pytest.mark.real
def test_the_validation_split_has_the_published_number_of_cases(real_data: Path, tmp_path: Path) -> None:
    found, report = prepare_redial(real_data / "redial", None, "valid")
    cases = repeats = 0
    for one in found:
        spoken_of: set[str] = set()
        for turn in one.turns:
            if turn.role == "assistant":
                cases += len(turn.mentions)
                repeats += sum(item in spoken_of for item in turn.mentions)
            spoken_of.update(turn.mentions)
    assert (report["dialogues written"], cases, repeats) == (1003, 3881, 288)
    write_dialogues(found, tmp_path / "valid.jsonl")
    assert list(read_dialogues(tmp_path / "valid.jsonl")) == found
