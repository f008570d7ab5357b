"""Texts as unit vectors by a sentence encoder: MiniLM by default, or one in a local directory.

Knows nothing of items or semantic IDs. What has been encoded once is kept in the cache, by the content of the text
and of the encoder.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError, MissingModelError
from gcrs.toolkit.files import cache_dir, sha256_file
from gcrs.toolkit.model.quiet import quiet_transformers
from gcrs.toolkit.weights import PINNED, fetch

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int, int, str], None]

MINILM = "minilm"
MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained with
_FORMAT = 1  # of the cached vectors: raise it when pooling or cutting changes


def encode_texts(
    texts: Sequence[str], encoder: str = MINILM, progress: Progress | None = None, batch_size: int = 64
) -> np.ndarray:
    """Float32 [n, width], a unit vector for each text: the mean of the last layer's token vectors (MiniLM: 384 wide).

    `encoder` is "minilm" or a directory in the Hugging Face layout (config.json, safetensors, tokenizer.json).
    Texts are cut at 256 tokens and batched by length; a text without a token has the zero vector. The vectors of
    equal texts are equal. Raises MissingModelError (exit 4) when the encoder is not there and cannot be fetched,
    DataError when a directory holds no encoder.
    """
    import numpy as np

    folder, fingerprint = _locate(encoder, progress)
    keys = [
        hashlib.sha256(f"{_FORMAT}:{fingerprint}:{text}".encode("utf-8", "surrogatepass")).digest() for text in texts
    ]
    with _cache() as cache:
        known = _lookup(cache, set(keys))
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if todo:
            ordered = sorted(todo.items(), key=lambda entry: len(entry[1]))
            model, tokenizer = _load(folder)
            for start in range(0, len(ordered), batch_size):
                batch = ordered[start : start + batch_size]
                vectors = _mean_pool(model, tokenizer, [text for _, text in batch])
                fresh = {key: vector for (key, _), vector in zip(batch, vectors, strict=True)}
                known |= fresh
                _store(cache, fresh)
                if progress:
                    progress(min(start + batch_size, len(ordered)), len(ordered), "encoding texts")
    if not keys:
        width = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("hidden_size", 0)
        return np.zeros((0, int(width)), dtype=np.float32)
    return np.stack([known[key] for key in keys])


def encoder_fingerprint(encoder: str = MINILM) -> str:
    """A hash of the encoder's weights: it names which encoder made a vector. Raises what `encode_texts` raises."""
    return _locate(encoder, None)[1]


def _locate(encoder: str, progress: Progress | None) -> tuple[Path, str]:
    if encoder == MINILM:
        pinned = PINNED["minilm-l6-v2"]
        return fetch(pinned.name, progress), hashlib.sha256(
            "".join(f.sha256 for f in pinned.files).encode()
        ).hexdigest()
    folder = Path(encoder)
    if not folder.is_dir():
        raise MissingModelError(
            f"The encoder {encoder!r} is neither {MINILM!r} nor a directory.",
            hint="Give the path of a folder with config.json, model.safetensors and tokenizer.json.",
        )
    weights = [folder / "config.json", folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))]
    if len(weights) < 3 or not all(path.is_file() for path in weights):
        raise DataError(
            f"{folder} is not an encoder: config.json, tokenizer.json and at least one .safetensors file were expected."
        )
    return folder, hashlib.sha256("".join(map(sha256_file, weights)).encode()).hexdigest()


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{folder} does not load as an encoder: {str(error).splitlines()[0]}.") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.float().eval(), tokenizer


def _mean_pool(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Mean of the token vectors under the attention mask, scaled to length one (as sentence-transformers does)."""
    import torch

    batch = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    if batch["input_ids"].shape[1] == 0:
        return torch.zeros(len(texts), model.config.hidden_size).numpy()
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


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
