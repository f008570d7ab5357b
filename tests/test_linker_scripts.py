"""Titles in other scripts than Latin, as people type them in their languages."""

from __future__ import annotations

import pytest

from gcrs.toolkit.catalog.duplicates import near_duplicates, normalise_title, same_titles
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.scripts import script_shares

TITLES = {
    "ja1": "七人の侍",
    "ja2": "千と千尋の神隠し",
    "ja3": "君の名は。",
    "ja4": "ガンダム",
    "ja5": "侍",
    "zh1": "霸王别姬",
    "zh2": "活着",
    "ar1": "ألف ليلة وليلة",
    "ru1": "Война и мир",
    "ru2": "Идиот",
    "ko1": "기생충",
    "hi1": "आग का दरिया",
    "he1": "שתיקת הארכיון",
    "th1": "คู่กรรม",
    "fr1": "Amélie",
    "el1": "Ζορμπάς",
    "pl1": "Zażółć gęślą",
    "tr1": "Kış Uykusu",
}
LINKER = Linker(Catalog([Item(item_id, title) for item_id, title in TITLES.items()]))


@pytest.mark.parametrize(
    ("typed", "linked"),
    [
        ("七人の侍が好きです。他には?", "<item:ja1>が好きです。他には?"),
        ("「千と千尋の神隠し」みたいな映画は?", "「<item:ja2>」みたいな映画は?"),
        ("昨日君の名は。とガンダムを見ました", "昨日<item:ja3>。と<item:ja4>を見ました"),
        ("ｶﾞﾝﾀﾞﾑが好き", "<item:ja4>が好き"),
        ("I liked amelie and 七人の侍!", "I liked <item:fr1> and <item:ja1>!"),
        ("我喜欢霸王别姬，还有《活着》", "我喜欢<item:zh1>，还有《<item:zh2>》"),
        ("أحببت ألف ليلة وليلة كثيرا", "أحببت <item:ar1> كثيرا"),
        ("посоветуй что-то как война и мир", "посоветуй что-то как <item:ru1>"),
        ("Мне понравился Идиот", "Мне понравился <item:ru2>"),
        ("기생충을 봤어요", "<item:ko1>을 봤어요"),
        ("기생충 같은 영화", "<item:ko1> 같은 영화"),
        ("मुझे आग का दरिया पसंद है", "मुझे <item:hi1> पसंद है"),
        ("אהבתי את שתיקת הארכיון", "אהבתי את <item:he1>"),
        ("ฉันชอบคู่กรรมมาก", "ฉันชอบ<item:th1>มาก"),
        ("Μου άρεσε ο Ζορμπάς", "Μου άρεσε ο <item:el1>"),
        ("polecam zazolc gesla!", "polecam <item:pl1>!"),
        ("Kis uykusu harikaydı", "<item:tr1> harikaydı"),
    ],
)
def test_titles_are_found_in_every_script(typed: str, linked: str) -> None:
    assert LINKER.link(typed).text == linked


@pytest.mark.parametrize(
    "typed", ["侍です", "何かお薦めはありますか?", "他活着回来了", "ガンタムです", "идиотизм", "مرحبا كيف حالك"]
)
def test_plain_speech_is_left_alone_in_every_script(typed: str) -> None:
    assert LINKER.link(typed).text == typed


def test_letters_that_marks_tell_apart_are_not_one_title() -> None:
    assert normalise_title("か") != normalise_title("が")
    assert normalise_title("कल") != normalise_title("काल")
    catalog = Catalog([Item("1", "はし"), Item("2", "ばし"), Item("3", "ＡＢＣ物語"), Item("4", "abc物語")])
    assert same_titles(catalog) == [["3", "4"]]
    assert [(pair.first, pair.second) for pair in near_duplicates(catalog)] == [("3", "4")]


def test_scripts_are_counted_by_letters() -> None:
    assert script_shares("ab, 12") == {"Latin": 2}
    assert script_shares("Ω мир 侍ガ") == {"Greek": 1, "Cyrillic": 3, "Han": 1, "kana": 1}
