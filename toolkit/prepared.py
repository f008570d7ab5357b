"""PreparedCatalog: a catalogue with semantic IDs as one directory, the result of `gcrs catalog build`.

Files: items.jsonl, codebook.safetensors (the quantizer, its encoder included), semantic_ids.json, health.json,
health.png, and catalog.json, which ties them by SHA-256 and records how they were made. Knows nothing of language
models or dialogues beyond the baskets of items that it may be given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gcrs.toolkit.catalog.duplicates import check_buildable, same_titles
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.text import item_text
from gcrs.toolkit.catalog.text_columns import text_columns
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import (
    atomic_directory,
    atomic_write,
    read_json,
    recover_directory,
    sha256_file,
    sha256_json,
    strangers,
)
from gcrs.toolkit.ids.codebook import Codebook

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.catalog.encoder_files import Encoder
    from gcrs.toolkit.catalog.feeds import FeedReport
    from gcrs.toolkit.dialogue.shape import SequenceShape
    from gcrs.toolkit.ids.health import Health
    from gcrs.toolkit.ids.quantizer import Quantizer
    from gcrs.toolkit.ray_data import RayConfig

Progress = Callable[[int, int, str], None]

FORMAT = "gcrs-catalog"
VERSION = 1
MANIFEST = "catalog.json"
PARTS = ("items.jsonl", "codebook.safetensors", "semantic_ids.json", "health.json")
COLLABORATIVE_WIDTH = 64
REBUILD = "Build it again: gcrs catalog build ITEMS --out DIR"


@dataclass(frozen=True)
class BuildConfig:
    """Everything that decides a catalogue's semantic IDs; written into catalog.json."""

    encoder: str = "minilm"
    """Text encoder: a short name such as minilm or bge-large-en-v1.5, a hub id, or a directory (docs/encoders.md)."""
    quantizer: Literal["rqvae", "rqkmeans"] = "rqkmeans"
    """How item vectors become codes."""
    levels: int | None = None
    """Codes in a semantic ID; None: from the number of items."""
    codes: int | None = None
    """Codewords at each level; None: from the number of items."""
    text_columns: tuple[str, ...] | None = None
    """Columns that the encoder reads behind the title; None: those that say what an item is."""
    collaborative: float = 0.0
    """Share of the item vector that comes from co-mentions, 0 (text alone) to 1."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where the encoder computes: cpu or cuda. Its vectors differ in the last digits."""

    def __post_init__(self) -> None:
        if self.quantizer not in ("rqvae", "rqkmeans"):
            raise UsageError(f"--quantizer is {self.quantizer!r}, expected rqvae or rqkmeans.")
        if not 0 <= self.collaborative <= 1:
            raise UsageError(f"--collaborative is {self.collaborative:g}, expected a share from 0 to 1.")


@dataclass(frozen=True)
class PreparedCatalog:
    """A catalogue, its semantic IDs (rows in the catalogue's order), the quantizer that made them, and the settings.

    `settings` is what catalog.json says of the making; `report` the health report, None when loaded (`health` has it).
    """

    catalog: Catalog
    book: Codebook
    quantizer: Quantizer
    settings: dict[str, Any]
    health: dict[str, Any]
    report: Health | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what identifies this catalogue: its items, its semantic IDs and how they were made."""
        items = [[item.id, item.title, dict(item.facts), item.aliases, item.names] for item in self.catalog]
        return sha256_json([self.settings, self.catalog.columns, items, self.book.codes, list(self.book.ids.items())])

    def shown(self, shape: SequenceShape) -> PreparedCatalog:
        """This catalogue as sequences of that shape show its items: with titles in its codebook, or as it is."""
        return replace(self, book=replace(self.book, titles=self.catalog.titles())) if shape.titles else self

    def words(self, item_id: str) -> str:
        """The item as the text that the encoder read."""
        return item_text(self.catalog[item_id], self.settings["text"]["columns"])

    def vectors_of(self, items: Sequence[Item], progress: Progress | None = None) -> np.ndarray:
        """Float32 [n, width]: items that join later, their co-mentions estimated from those of their nearest by text.

        What the items of the catalogue are near to is read off their semantic IDs. DataError when the encoder that the
        settings record is another one by now; the quantizer refuses a width that is not its own.
        """
        import numpy as np

        from gcrs.toolkit.catalog.collaborative import estimated_vectors
        from gcrs.toolkit.catalog.encoders import encode_like
        from gcrs.toolkit.ids.quantizer import check_vectors

        columns, together = self.settings["text"]["columns"], self.settings["collaborative"]
        text = encode_like([item_text(item, columns) for item in items], self.settings["encoder"], progress)
        if not together["share"]:
            return text
        known = self.quantizer.reconstruct(self.book.array())
        split = known.shape[1] - together["width"]
        estimated = estimated_vectors(check_vectors(text, split), known[:, :split], known[:, split:])
        return np.concatenate([np.sqrt(1 - together["share"]) * text, estimated], axis=1).astype(np.float32)

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        config: BuildConfig,
        *,
        baskets: Iterable[Sequence[str]] = (),
        progress: Progress | None = None,
        ray: RayConfig | None = None,
    ) -> PreparedCatalog:
        """Encode the items and find their semantic IDs.

        `baskets` are the items of each dialogue, for the collaborative part; with `ray` its workers encode the texts.
        The same input, seed and thread count give the same IDs. Raises UsageError for settings that do not fit,
        DataError for the catalogue, MissingModelError for the encoder.
        """
        from gcrs.toolkit.catalog.encoders import find_encoder
        from gcrs.toolkit.ids.build import build_codebook

        check_buildable(catalog)
        chosen = text_columns(catalog, config.text_columns)
        columns = chosen.columns
        encoder = find_encoder(config.encoder, progress)
        vectors = _vectors(catalog, columns, config, encoder, baskets, progress, ray)
        quantizer, book, report = build_codebook(
            vectors,
            [item.id for item in catalog],
            quantizer=config.quantizer,
            levels=config.levels,
            codes=config.codes,
            seed=config.seed,
            items_without_text=[item.id for item in catalog if not any(c in item.facts for c in columns)],
            duplicate_titles=same_titles(catalog),
            progress=progress,
        )
        settings = {
            "text": {"template": "title: … | column: value | …", "columns": columns, "left_out": chosen.left_out},
            "encoder": encoder.record(),
            "collaborative": {"share": config.collaborative, "width": COLLABORATIVE_WIDTH},
            "quantizer": {"kind": quantizer.kind, **asdict(quantizer.config)},
            "seed": config.seed,
        }
        settings = json.loads(json.dumps(settings))  # as it will be read back
        return cls(catalog, book, quantizer, settings, report.to_json(), report)

    def save_parts(self, directory: Path) -> None:
        """Write the files into an existing directory; `save` and bundles stage it."""
        from gcrs.toolkit.catalog.readers import write_items
        from gcrs.toolkit.ids.build import save_codebook
        from gcrs.toolkit.ids.quantizer import save_quantizer

        write_items(self.catalog, directory / "items.jsonl")
        save_quantizer(self.quantizer, directory / "codebook.safetensors")
        save_codebook(self.book, directory / "semantic_ids.json")
        _dump(self.health, directory / "health.json")
        if self.report is not None:
            self.report.plot(directory / "health.png")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "items": len(self.catalog),
            "columns": self.catalog.columns,
            "settings": self.settings,
            "parts": {part: sha256_file(directory / part) for part in PARTS},
        }
        _dump(manifest, directory / MANIFEST)

    def save(self, directory: Path) -> None:
        """Write or replace a directory in one rename: a failure or a kill leaves what was there.

        DataError when it holds something else than a prepared catalogue.
        """
        check_replaceable(directory)
        with atomic_directory(directory) as staged:
            self.save_parts(staged)

    @classmethod
    def load(cls, directory: Path) -> PreparedCatalog:
        """Read what `save` (or a bundle) wrote; a shipped bundle's name stands for its directory.

        DataError names the part that is missing, broken or mixed.
        """
        from gcrs.toolkit.catalog.readers import read_items
        from gcrs.toolkit.ids.build import load_codebook
        from gcrs.toolkit.ids.quantizer import load_quantizer

        directory = catalog_path(directory)
        manifest = _read_manifest(directory)
        for part in PARTS:
            path = directory / part
            if not path.is_file():
                raise DataError(f"{directory}: {part} is missing.", hint=REBUILD)
            if sha256_file(path) != manifest["parts"].get(part):
                raise DataError(
                    f"{directory}: {part} is broken or from another catalogue (its SHA-256 differs).", hint=REBUILD
                )
        catalog = read_items(directory / "items.jsonl")
        quantizer = load_quantizer(directory / "codebook.safetensors")
        book = load_codebook(directory / "semantic_ids.json", quantizer, [item.id for item in catalog])
        if list(book) != [item.id for item in catalog]:  # masks over items are in this order
            raise DataError(f"{directory}: semantic_ids.json has the items in another order.", hint=REBUILD)
        return cls(catalog, book, quantizer, manifest["settings"], read_json(directory / "health.json"))


def open_catalog(
    source: str | Path, on_feed: Callable[[FeedReport], None] | None = None
) -> tuple[Catalog, PreparedCatalog | None]:
    """A catalogue from a prepared directory, a bundle (directory or shipped name) or a file of items.

    The second value is None for a file; `on_feed` hears what a product feed was read as. DataError when it is none of
    these.
    """
    from gcrs.toolkit.catalog.readers import read_items

    path = catalog_path(source)
    if path.is_dir() or not path.suffix:  # a name without a suffix is a directory that is not there
        prepared = PreparedCatalog.load(path)
        return prepared.catalog, prepared
    return read_items(path, on_feed), None


def catalog_path(source: str | Path) -> Path:
    """Where a catalogue, bundle or file of items lies: a path as it is, a shipped bundle's name as its directory."""
    from gcrs.toolkit.model.bundle import shipped_bundles

    path = Path(source)
    if not path.exists() and str(source) in (named := shipped_bundles()):
        return named[str(source)]
    return path


def _dump(value: Any, path: Path) -> None:
    with atomic_write(path) as handle:
        handle.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def check_replaceable(directory: Path) -> None:
    """DataError when something that is no prepared catalogue stands where one shall be written."""
    directory = Path(directory)
    foreign = directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file()
    if directory.is_file() or foreign or (directory / "gcrs.json").is_file():  # the last: a bundle
        raise DataError(f"{directory} exists and is no catalogue of gcrs.", hint="Choose another --out.")
    if directory.is_dir() and (others := strangers(directory, MANIFEST, *PARTS, "health.png")):
        raise DataError(
            f"{directory} holds {others[0]!r}, which is no part of a catalogue.",
            hint="Move it, or choose another --out.",
        )


def _read_manifest(directory: Path) -> dict[str, Any]:
    recover_directory(directory)
    if not directory.exists():
        raise DataError(f"{directory} does not exist.", hint="Make it: gcrs catalog build ITEMS --out DIR")
    path = directory / MANIFEST
    if not path.is_file():
        raise DataError(f"{directory} has no {MANIFEST}: it is no prepared catalogue.", hint=REBUILD)
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path} is no {FORMAT} manifest.", hint=REBUILD)
    if manifest.get("version") != VERSION:
        raise DataError(f"{path} has version {manifest.get('version')!r}, expected {VERSION}.", hint="Update gcrs.")
    settings = manifest.get("settings")
    text = settings.get("text") if isinstance(settings, dict) else None
    if not isinstance(manifest.get("parts"), dict) or not isinstance(text, dict) or "columns" not in text:
        raise DataError(f"{path} lacks parts or settings.", hint=REBUILD)
    return manifest


def _vectors(
    catalog: Catalog,
    columns: Sequence[str],
    config: BuildConfig,
    encoder: Encoder,
    baskets: Iterable[Sequence[str]],
    progress: Progress | None,
    ray: RayConfig | None,
) -> np.ndarray:
    """Float32 [items, width]: the text's unit vector, then the co-mentions', weighted so that the shares add to one."""
    import numpy as np

    from gcrs.toolkit.catalog.collaborative import co_mention_vectors
    from gcrs.toolkit.catalog.encoders import encode_texts

    texts = [item_text(item, columns) for item in catalog]
    text = encode_texts(texts, encoder, progress, device=config.device, ray=ray)
    share = config.collaborative
    if not share:
        return text
    ids = [item.id for item in catalog]
    together = co_mention_vectors(baskets, ids, dim=COLLABORATIVE_WIDTH, seed=config.seed)
    return np.concatenate([np.sqrt(1 - share) * text, np.sqrt(share) * together], axis=1).astype(np.float32)
