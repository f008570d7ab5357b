"""Texts as unit vectors by a text encoder: MiniLM by default, or one by name, hub id or directory.

What has been encoded once is kept in the cache, by the content of the text, of the encoder and of its recipe. Knows
nothing of items or semantic IDs.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.catalog.encoder_files import Encoder, find_encoder
from gcrs.toolkit.catalog.encoder_names import MINILM
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import cache_dir

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.catalog.encoder_models import EncoderModel
    from gcrs.toolkit.ray_data import RayConfig

Progress = Callable[[int, int, str], None]

_FORMAT = 2  # of the cached vectors: raise it when a recipe's meaning changes


def encode_texts(
    texts: Sequence[str],
    encoder: str | Encoder = MINILM,
    progress: Progress | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    ray: RayConfig | None = None,
) -> np.ndarray:
    """Float32 [n, width], a unit vector for each text by the encoder's recipe (MiniLM: 384 wide).

    `encoder` is what `find_encoder` takes or gives. Texts are cut at the recipe's length and batched by length; a text
    without a token has the zero vector. The vectors of equal texts are equal. With `ray` its workers encode, who see
    the encoder's folder under the same name; what they have done is kept as it comes, so a killed run goes on there.
    Raises MissingModelError (exit 4) when the encoder is not there and cannot be fetched, DataError when its files are
    no encoder, UsageError for a device that this machine does not have.
    """
    import numpy as np

    found = find_encoder(encoder, progress) if isinstance(encoder, str) else encoder
    stamp = f"{_FORMAT}:{found.sha256}:{_stamp(found)}"
    keys = [hashlib.sha256(f"{stamp}:{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
    with _cache() as cache:
        known = _lookup(cache, set(keys))
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if todo:
            ordered = sorted(todo.items(), key=lambda entry: len(entry[1]))
            batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
            done = 0
            for number, vectors in _encoded(found, device, [[text for _, text in batch] for batch in batches], ray):
                fresh = {key: vector for (key, _), vector in zip(batches[number], vectors, strict=True)}
                known |= fresh
                _store(cache, fresh)
                done += len(fresh)
                if progress:
                    progress(done, len(ordered), "encoding texts")
    if not keys:
        return np.zeros((0, found.width), dtype=np.float32)
    return np.stack([known[key] for key in keys])


def encode_like(
    texts: Sequence[str], record: Mapping[str, Any], progress: Progress | None = None, device: str = "cpu"
) -> np.ndarray:
    """`encode_texts` by the encoder that a catalogue records (its `settings["encoder"]`), for texts that join later.

    DataError when what now goes by that name has other weights or another recipe: its vectors would mean nothing to
    the catalogue's quantizer.
    """
    encoder = find_encoder(str(record.get("name")), progress)
    now = encoder.record()
    names = [key for key in {**record, **now} if key not in ("name", "source")]
    for key in names if "pooling" in record else ["sha256"]:  # older catalogues keep name and hash alone
        if record.get(key) != now.get(key):
            raise DataError(
                f"The catalogue was encoded by {encoder.name} with {key} {record.get(key)!r}, here it is "
                f"{now.get(key)!r}.",
                hint="Use the same encoder, or build the catalogue again: gcrs catalog build",
            )
    return encode_texts(texts, encoder, progress, device=device)


def encoder_fingerprint(encoder: str = MINILM) -> str:
    """A hash of the encoder's weights: it names which encoder made a vector. Raises what `find_encoder` raises."""
    return find_encoder(encoder).sha256


class EncodeBatch:
    """Encodes batches of texts: holds one encoder, loaded with the first batch that it gets."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        self.encoder, self.device = encoder, device
        self._model: EncoderModel | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """`number` and `texts` of a batch -> its `number`, and its vectors as the bytes of float32 [n, width]."""
        return {"number": row["number"], "vectors": self.vectors(list(row["texts"])).tobytes()}

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 [n, width]."""
        if self._model is None:
            from gcrs.toolkit.catalog.encoder_models import EncoderModel

            self._model = EncoderModel(self.encoder, self.device)
        return self._model.vectors(texts)


def _encoded(
    encoder: Encoder, device: str, batches: Sequence[list[str]], ray: RayConfig | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Each batch's number and vectors, as they are done."""
    if ray is None:
        here = EncodeBatch(encoder, device)
        yield from ((number, here.vectors(texts)) for number, texts in enumerate(batches))
        return
    import numpy as np

    from gcrs.toolkit.ray_data import ray_rows

    rows = [{"number": number, "texts": texts} for number, texts in enumerate(batches)]
    for row in ray_rows(EncodeBatch, {"encoder": encoder, "device": device}, rows, ray):
        yield int(row["number"]), np.frombuffer(row["vectors"], dtype=np.float32).reshape(-1, encoder.width)


def _stamp(encoder: Encoder) -> str:
    """What of the recipe decides a vector, as text."""
    recipe = asdict(encoder.recipe)
    del recipe["source"], recipe["transformer"]
    return json.dumps(recipe, sort_keys=True)


@contextmanager
def _cache() -> Iterator[sqlite3.Connection]:
    """The store of vectors; one in memory when the cache directory cannot be used. A broken file is started anew."""
    path = cache_dir() / "texts.sqlite"
    try:
        connection = _open_cache(path)
    except (OSError, sqlite3.Error):
        try:
            path.unlink(missing_ok=True)
            connection = _open_cache(path)
        except (OSError, sqlite3.Error):
            connection = _open_cache(None)
    try:
        yield connection
    finally:
        connection.close()


def _open_cache(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path or ":memory:", timeout=30)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _lookup(cache: sqlite3.Connection, keys: set[bytes]) -> dict[bytes, np.ndarray]:
    import numpy as np

    found: dict[bytes, np.ndarray] = {}
    ordered = list(keys)
    for start in range(0, len(ordered), 500):
        part = ordered[start : start + 500]
        marks = ",".join("?" * len(part))
        for key, blob in cache.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):
            found[key] = np.frombuffer(blob, dtype=np.float32)
    return found


def _store(cache: sqlite3.Connection, vectors: dict[bytes, np.ndarray]) -> None:
    """Keep a batch; a disk that refuses costs the cache, not the vectors."""
    try:
        with cache:
            cache.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(key, v.tobytes()) for key, v in vectors.items()]
            )
    except sqlite3.Error:
        pass
