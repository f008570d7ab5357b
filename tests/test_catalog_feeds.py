"""Product feeds as catalogues: what is recognised, what each column becomes, and what is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcrs.cli import main
from gcrs.toolkit.catalog import feed_values
from gcrs.toolkit.catalog.feed_names import recognise
from gcrs.toolkit.catalog.feeds import FeedReport
from gcrs.toolkit.catalog.filters import Columns, parse_where
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.catalog.readers import read_items
from gcrs.toolkit.errors import DataError

HEADER = (
    "id\ttitle\tdescription\tlink\timage link\tadditional_image_link\tavailability\tprice\tsale_price\t"
    "sale_price_effective_date\tproduct_type\tgtin\tcost_of_goods_sold\tproduct_highlight\tmaterial"
)
ROWS = (
    "A1\tTrail shoe\t<p>Light &amp; waterproof.</p>\thttps://s.example/a\thttps://s.example/a.jpg\t"
    "https://s.example/b.jpg,https://s.example/c.jpg\tin stock\t79.99 USD\t59.99 USD\t"
    '2026-03-01T00:00Z/2026-03-15T23:59+01:00\tShoes > Trail\t0012345678905\t31 USD\t"Light","Dries fast, really"\t',
    "B1\tKettle\tSteel.\thttps://s.example/k\thttps://s.example/k.jpg\t\tpreorder\t49,50 EUR\t\t\t"
    "Camping > Kitchen\t0098765432109\t20 EUR\t\t",
    "B2\tStove\tSmall.\thttps://s.example/s\thttps://s.example/s.jpg\t\tout of stock\task us\t\t\t"
    "Camping > Kitchen\t0098765432116\t8 EUR\t\t",
)
EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "product_feed.tsv"
RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title><link>https://s.example</link>
<item><title>plain</title><g:title>Trail shoe</g:title><g:id>A1</g:id><link>https://s.example/a</link>
<description><![CDATA[<p>Light &amp; waterproof.</p>]]></description><g:price>79.99 USD</g:price>
<g:availability>in_stock</g:availability><g:product_type>Shoes &gt; Trail</g:product_type>
<g:product_type>Sale</g:product_type>
<g:shipping><g:country>US</g:country><g:price>5 USD</g:price></g:shipping></item>
<item><g:id>B1</g:id><g:title>Kettle</g:title><g:price>12 USD</g:price></item>
</channel></rss>
"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>
<entry><g:id>1</g:id><title>Red wool sweater</title><link href="https://s.example/1"/><summary>Warm.</summary>
<g:price>25 GBP</g:price></entry></feed>
"""
OPENAI = [
    {
        "item_id": "A1",
        "title": "Trail shoe",
        "url": "https://s.example/a",
        "price": "79.99 USD",
        "availability": "in_stock",
        "is_eligible_search": True,
        "target_countries": ["US", "CA"],
        "variant_dict": {"color": "Blue", "size": "10"},
        "star_rating": "4.5",
        "product_category": "Shoes > Trail",
    },
    {"item_id": "A2", "title": "Kettle", "url": "https://s.example/k", "price": 12, "is_eligible_search": "false"},
]


def read(path: Path, content: str | bytes) -> tuple[Catalog, FeedReport]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reports: list[FeedReport] = []
    catalog = read_items(path, reports.append)
    assert len(reports) == 1
    return catalog, reports[0]


def test_a_google_feed_in_tsv(tmp_path: Path) -> None:
    catalog, report = read(tmp_path / "shop.tsv", "\n".join([HEADER, *ROWS]) + "\n")
    assert catalog["A1"].facts == {
        "description": "Light & waterproof.",
        "link": "https://s.example/a",
        "image_link": "https://s.example/a.jpg",
        "additional_image_link": ["https://s.example/b.jpg", "https://s.example/c.jpg"],
        "availability": "in_stock",
        "in_stock": True,
        "price": 79.99,
        "currency": "USD",
        "sale_price": 59.99,
        "sale_price_effective_date_start": "2026-03-01T00:00:00Z",
        "sale_price_effective_date_end": "2026-03-15T22:59:00Z",
        "product_type": ["Shoes", "Trail"],
        "gtin": "0012345678905",
        "product_highlight": ["Light", "Dries fast, really"],
    }
    assert catalog["B1"].facts["price"] == 49.5 and catalog["B1"].facts["in_stock"] is False
    assert "price" not in catalog["B2"].facts
    assert report.lines() == [
        f"{tmp_path / 'shop.tsv'} is read as a Google-compatible product feed:",
        "  as text: description, link, image link, gtin",
        "  additional_image_link -> additional_image_link (list)",
        "  availability -> availability (string), in_stock (boolean)",
        "  price -> price (number), currency (string)",
        "  sale_price -> sale_price (number)",
        "  sale_price_effective_date -> sale_price_effective_date_start (date), sale_price_effective_date_end (date)",
        "  product_type -> product_type (list)",
        "  product_highlight -> product_highlight (list)",
        "  price: 1 of 3 could not be read and count as missing, the first 'ask us' in line 4.",
        "  cost_of_goods_sold is left out: not for the people who talk with it.",
        "  material is left out: empty.",
        "  Prices are in several currencies (USD 1, EUR 1): a rule on price compares the numbers as they are, so add "
        "one such as --where currency=USD.",
    ]


def test_rules_work_on_a_feed(tmp_path: Path) -> None:
    catalog, _ = read(tmp_path / "shop.tsv.gz", gzip.compress("\n".join([HEADER, *ROWS, ""]).encode()))
    for rule, allowed in {
        "price<60": [False, True, False],
        "price!=1": [True, True, False],  # a price that could not be read satisfies no rule
        "in_stock=true": [True, False, False],
        "availability=preorder": [False, True, False],
        "product_type=camping": [False, True, True],
        "currency=eur": [False, True, False],
        "sale_price_effective_date_end>=2026-03": [True, False, False],
    }.items():
        assert Columns(catalog).allowed([parse_where(rule)]).tolist() == allowed, rule


def test_google_feeds_in_xml(tmp_path: Path) -> None:
    catalog, report = read(tmp_path / "shop.xml", RSS)
    assert report.kind == "google"
    assert [item.title for item in catalog] == ["Trail shoe", "Kettle"]
    facts = catalog["A1"].facts
    assert facts["product_type"] == ["Shoes", "Trail", "Sale"]
    assert facts["description"] == "Light & waterproof."
    assert facts["shipping"] == ["country: US, price: 5 USD"]
    assert (facts["price"], facts["currency"], facts["link"]) == (79.99, "USD", "https://s.example/a")
    rdf, _ = read(
        tmp_path / "rdf.xml",
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/" '
        'xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title></channel><item rdf:about="x">'
        "<title>Sweater</title><g:id>1</g:id><g:price>25 USD</g:price></item></rdf:RDF>",
    )
    assert rdf["1"].title == "Sweater" and rdf["1"].facts == {"price": 25.0, "currency": "USD"}
    atom, _ = read(tmp_path / "atom.xml.gz", gzip.compress(ATOM.encode()))
    assert dict(atom["1"].facts) == {
        "link": "https://s.example/1",
        "description": "Warm.",
        "price": 25.0,
        "currency": "GBP",
    }


def test_openai_feeds_in_json_lines_and_parquet(tmp_path: Path) -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in OPENAI)
    catalog, report = read(tmp_path / "shop.jsonl.gz", gzip.compress(text.encode()))
    assert report.kind == "openai"
    assert catalog["A1"].facts == {
        "url": "https://s.example/a",
        "price": 79.99,
        "currency": "USD",
        "availability": "in_stock",
        "in_stock": True,
        "is_eligible_search": True,
        "target_countries": ["US", "CA"],
        "variant_dict": ["color: Blue", "size: 10"],
        "star_rating": 4.5,
        "product_category": ["Shoes", "Trail"],
    }
    assert catalog["A2"].facts == {"url": "https://s.example/k", "price": 12.0, "is_eligible_search": False}
    columns = {name: [str(entry.get(name, "")) for entry in OPENAI] for name in ("item_id", "title", "url", "price")}
    pq.write_table(pa.table(columns), tmp_path / "shop.parquet")
    assert read_items(tmp_path / "shop.parquet")["A1"].facts["price"] == 79.99


def test_openai_feed_in_csv_of_the_first_specification(tmp_path: Path) -> None:
    catalog, report = read(
        tmp_path / "shop.csv",
        "enable_search,enable_checkout,id,title,price,inventory_quantity,size,return_policy\n"
        "true,false,A1,Shoe,79.99 USD,25,42,https://s.example/r\n"
        "true,false,A2,Boot,89.99 USD,0,XL,https://s.example/r\n",
    )
    assert report.kind == "openai"
    assert catalog.columns["size"] == "string" and catalog.columns["inventory_quantity"] == "integer"
    assert catalog["A1"].facts["enable_checkout"] is False


@pytest.mark.parametrize(
    "columns",
    [["id", "title", "year"], ["id", "title", "price"], ["id", "title", "price", "link", "brand"], ["id", "price"]],
)
def test_an_ordinary_catalogue_is_no_feed(columns: list[str]) -> None:
    assert recognise(columns) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("79.99 USD", (79.99, "USD")),
        ("usd 79.99", (79.99, "USD")),
        ("1,299.00 USD", (1299.0, "USD")),
        ("1.299,00 EUR", (1299.0, "EUR")),
        ("1 299,50 zł", (1299.5, "PLN")),
        ("1,299 JPY", (1299.0, "JPY")),
        ("€5", (5.0, "EUR")),
        ("$5", (5.0, "$")),
        (12, (12.0, None)),
        ({"amount": "3.50", "currency": "usd"}, (3.5, "USD")),
        ("free", None),
        ("-3 USD", None),
        (True, None),
    ],
)
def test_prices(written: object, expected: object) -> None:
    assert feed_values.money(written) == expected


def test_stock_words_have_one_spelling() -> None:
    spelled = ["in stock", "In_Stock", "https://schema.org/InStock", "out of stock", "pre_order", "preorder"]
    assert list(map(feed_values.stock_state, spelled)) == ["in_stock"] * 3 + ["out_of_stock"] + ["preorder"] * 2


BAD = {
    "bomb.xml": (
        '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><rss><item><id>1</id><title>&b;</title></item></rss>',
        "line 1: declares the entity 'a', which is refused",
    ),
    "outside.xml": (
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><rss><item><id>1</id><title>&a;</title></item></rss>',
        "line 1: declares the entity 'a', which is refused",
    ),
    "cut.xml": (RSS[:400], "line 5: not well-formed XML.*truncated"),
    "news.xml": ("<rss><item><guid>1</guid><title>A</title></item></rss>", "items of guid, title, expected a product"),
    "none.xml": ("<html><body/></html>", "holds no items"),
    "deep.xml": ("<rss><item>" + "<a>" * 60, "nested more than 50 deep"),
    "twice.tsv": (HEADER + "\tcolor\tg:color\n" + ROWS[0] + "\ta\tb\n", "has the column 'color' twice"),
    "ids.tsv": ("\n".join([HEADER, ROWS[0], ROWS[0], ""]), "line 3, column 'id': found the id 'A1' a second time"),
    "title.jsonl": (json.dumps({**OPENAI[0], "title": ""}) + "\n", "line 1, column 'title': found an empty title"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_feeds_get_one_sentence(name: str, tmp_path: Path) -> None:
    content, expected = BAD[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_items(tmp_path / name)
    assert re.search(expected, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_commands_say_what_was_recognised(
    toy_encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "shop.xml", tmp_path / "out"
    path.write_text(RSS, encoding="utf-8")
    said = (
        f"{path} is read as a Google-compatible product feed:\n"
        "  as text: link, description\n"
        "  price -> price (number), currency (string)\n"
        "  availability -> availability (string), in_stock (boolean)\n"
        "  product_type -> product_type (list)\n"
        "  shipping -> shipping (list)\n"
    )
    assert main(["catalog", "show", str(path), "B1"]) == 0
    assert capsys.readouterr() == ("id: B1\ntitle: Kettle\nprice: 12.0\ncurrency: USD\n\n", said)
    flags = ["--encoder", str(toy_encoder_dir), "--json"]
    assert main(["catalog", "build", str(path), "--out", str(out), *flags]) == 0
    printed, messages = capsys.readouterr()
    answer = json.loads(printed)
    assert answer["feed"]["kind"] == "google" and answer["feed"]["columns"]["price"] == [
        "price (number)",
        "currency (string)",
    ]
    assert answer["text"]["columns"] == ["description", "product_type"]
    assert messages == (
        f"{said}The encoder reads title, description, product_type.\n"
        "It does not read link (links); price, currency (prices); availability, in_stock (stock); "
        "shipping (terms of the shop). --text-column NAME decides otherwise.\n"
    )
    settings = json.loads((out / "catalog.json").read_text(encoding="utf-8"))["settings"]
    assert settings["text"]["columns"] == ["description", "product_type"]


def test_the_documented_example_is_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "check", str(EXAMPLE)]) == 0
    printed, messages = capsys.readouterr()
    page = (EXAMPLE.parent.parent / "catalogue.md").read_text(encoding="utf-8")
    assert messages.replace(str(EXAMPLE), EXAMPLE.name) in page
    without_dates = [line for line in printed.splitlines()[1:] if "expiration_date>=" not in line]
    assert all(line in page for line in without_dates)
