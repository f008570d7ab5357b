"""The attributes of product feeds: how a feed is recognised by its columns, and what kind of value each attribute has.

Names are those of Google's product data specification and of OpenAI's product feed in its two spellings. Knows nothing
of files or of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text", "code", "money", "stock", "path", "link", "links", "date", "span", "integer", "number", "flag", "list"
]


def _named(kind: Kind, spaced: str) -> dict[str, Kind]:
    return dict.fromkeys(spaced.split(), kind)


KINDS: dict[str, Kind] = {
    **_named("text", "description brand color material pattern size gender age_group condition item_group_title"),
    **_named("text", "seller_name size_system offer_id dimensions q_and_a short_title structured_title"),
    **_named("code", "gtin mpn isbn sku item_group_id group_id custom_label_0 custom_label_1 custom_label_2"),
    **_named("code", "custom_label_3 custom_label_4 promotion_id store_code external_seller_id"),
    **_named("money", "price sale_price"),
    **_named("stock", "availability"),
    **_named("path", "product_category product_type google_product_category google_product_type"),
    **_named("link", "link url mobile_link canonical_link image_link image_url lifestyle_image_link video_link"),
    **_named("link", "video_url model_3d_link virtual_model_link 3d_model_url seller_url return_policy warning_url"),
    **_named("link", "seller_privacy_policy seller_tos ads_redirect checkout_link_template"),
    **_named("links", "additional_image_link additional_image_urls additional_image_url"),
    **_named("date", "availability_date expiration_date delivery_estimate"),
    **_named("date", "sale_price_effective_date_start sale_price_effective_date_end"),
    **_named("span", "sale_price_effective_date"),
    **_named("integer", "inventory_quantity review_count product_review_count store_review_count multipack"),
    **_named("integer", "min_handling_time max_handling_time return_window return_deadline_in_days quantity"),
    **_named("number", "popularity_score return_rate star_rating product_review_rating store_star_rating"),
    **_named("number", "store_review_rating"),
    **_named("flag", "enable_search enable_checkout is_eligible_search is_eligible_checkout is_eligible_ads"),
    **_named("flag", "is_ads_eligible is_bundle adult identifier_exists listing_has_variations accepts_returns"),
    **_named("flag", "accepts_exchanges is_digital"),
    **_named("list", "product_highlight product_detail target_countries shipping tax variant_dict variant_options"),
    **_named("list", "size_type related_product_id excluded_destination included_destination certification"),
    **_named("list", "geo_price geo_availability"),
}
PRIVATE = frozenset({"cost_of_goods_sold", "auto_pricing_min_price", "auto_pricing_max_price"})
"""What a shop tells the market's operator and nobody else: never a fact that a card shows."""

_OPENAI = frozenset({"enable_search", "enable_checkout", "is_eligible_search", "is_eligible_checkout"})
_OPENAI_BASICS = frozenset({"item_id", "url", "price"})
_GOOGLE = frozenset(
    {"image_link", "additional_image_link", "availability", "condition", "google_product_category", "product_type"}
    | {"gtin", "mpn", "item_group_id", "sale_price", "mobile_link", "identifier_exists", "age_group", "shipping"}
)
ENOUGH = 2  # of these beside id, title and price


@dataclass(frozen=True)
class Feed:
    """A recognised feed: whose form it has, and its columns as written with the attribute that each is."""

    kind: Literal["google", "openai"]
    attributes: Mapping[str, str]

    @property
    def words(self) -> str:
        """What it is called in a message."""
        return {"google": "a Google-compatible product feed", "openai": "an OpenAI product feed"}[self.kind]

    @property
    def id_column(self) -> str:
        """The column of the items' ids, as written."""
        return self._column("id") or self._column("item_id") or "id"

    @property
    def title_column(self) -> str:
        """The column of the items' titles, as written."""
        return self._column("title") or "title"

    def _column(self, attribute: str) -> str | None:
        return next((column for column, own in self.attributes.items() if own == attribute), None)


def attribute_of(column: str) -> str:
    """A column's attribute: `g:image_link`, `Image link` and `image link` are all `image_link`."""
    name = re.sub(r"\(.*\)$", "", column.strip().casefold().removeprefix("g:"))  # shipping(country:price)
    return re.sub(r"[\s\-]+", "_", name.strip())


def recognise(columns: Iterable[str], *, enough: int = ENOUGH) -> Feed | None:
    """The feed that these columns are of; None when they are of an ordinary catalogue.

    OpenAI's has one of its search and checkout flags, or an `item_id` with `url` and `price`; Google's has `price` and
    `enough` more of the attributes that feeds alone have.
    """
    attributes = {column: attribute_of(column) for column in columns}
    names = set(attributes.values())
    if "title" not in names or not names & {"id", "item_id"}:
        return None
    if names & _OPENAI or names >= _OPENAI_BASICS:
        return Feed("openai", attributes)
    prefixed = any(column.strip().casefold().startswith("g:") for column in attributes)
    if prefixed or ("price" in names and len(names & _GOOGLE) >= enough):
        return Feed("google", attributes)
    return None
