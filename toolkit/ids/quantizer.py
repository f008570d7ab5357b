"""What RQ-VAE and RQ-KMeans share: residual coding, settings, and codebook.safetensors.

A quantizer maps an item's vector to a latent point (RQ-KMeans: by a rotation, RQ-VAE: by an encoder) and codes that
level by level: the nearest codeword, then the nearest to what is left, and so on. Coding runs in float64, so that an
item coded alone gets the code that it got within its catalogue.

Knows nothing of items, collisions or text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_write
from gcrs.toolkit.ids.kmeans import CHUNK, nearest

Progress = Callable[[int, int, str], None]
Kind = Literal["rqvae", "rqkmeans"]
FORMAT = 1
HEADER = "gcrs.quantizer"


@dataclass(frozen=True)
class QuantizerConfig:
    """Settings of a quantizer; the defaults are the paper's where it states them.

    Raises UsageError when a value is out of range.
    """

    levels: int = 4
    """Codes in a semantic ID, 1 to 26."""
    codes: int = 64
    """Codewords at each level."""
    iterations: int = 100
    """At most so many k-means iterations a level."""
    sample: int = 100_000
    """k-means looks at no more vectors than this, drawn at random."""
    directions: int = 64
    """RQ-KMeans: clusters the vectors' main directions, so many of them; all where a vector has no more numbers."""
    latent: int = 32
    """RQ-VAE: width of the space that is quantized."""
    hidden: tuple[int, ...] = (512, 384, 256, 192, 128, 64)
    """RQ-VAE: widths between the vector and the latent space; six of them make the paper's seven layers."""
    epochs: int = 150
    """RQ-VAE: passes over the catalogue."""
    batch: int = 1024
    """RQ-VAE: items a step."""
    lr: float = 1e-3
    """RQ-VAE: learning rate."""
    weight_decay: float = 1e-4
    """RQ-VAE: weight decay of encoder and decoder; codewords have none."""
    commitment: float = 0.25
    """RQ-VAE: weight of the pull of latents towards their codewords."""

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 26:
            raise UsageError(f"--levels is {self.levels}, expected 1 to 26.")
        if not 2 <= self.codes <= 65_536:
            raise UsageError(f"--codes is {self.codes}, expected 2 to 65,536.")
        for name in ("iterations", "sample", "directions", "latent", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"The quantizer's {name} is {getattr(self, name)}, expected at least 1.")


class Quantizer(Protocol):
    """A fitted quantizer; `gcrs.toolkit.ids.rqkmeans` and `gcrs.toolkit.ids.rqvae` implement it."""

    kind: Kind
    config: QuantizerConfig
    codebooks: list[np.ndarray]
    """Codewords of each level, float64 [codes, latent width]."""

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Number of codewords at each level."""

    @property
    def width(self) -> int:
        """Numbers in an item's vector."""

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """The points that are coded, float64 [n, latent width], from vectors float [n, width]."""

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        """Greedy codes, int32 [n, levels]; items may share them until collisions are resolved."""

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """The vectors (float32 [n, width]) that codes (int [n, levels]) stand for."""

    def tensors(self) -> dict[str, np.ndarray]:
        """All that is learnt, by name, for safetensors."""


def check_vectors(vectors: np.ndarray, width: int | None = None) -> np.ndarray:
    """`vectors` as a float array [n, d]; DataError when the shape, the width or a value does not fit."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating) or 0 in vectors.shape:
        raise DataError(
            f"Item vectors are {vectors.dtype} {vectors.shape}, expected at least one row of floats [n, d]."
        )
    if width is not None and vectors.shape[1] != width:
        raise DataError(
            f"Item vectors have {vectors.shape[1]} numbers, the quantizer was fitted on {width}.",
            hint="Use the text encoder that the catalogue was built with.",
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise DataError(f"The vector in row {int(np.flatnonzero(~finite)[0])} has a value that is not finite.")
    return vectors


def residual_codes(latent: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """Greedy residual coding: int32 [n, levels] for points [n, d'] and one codebook [K, d'] a level."""
    codes = np.empty((len(latent), len(codebooks)), dtype=np.int32)
    for begin in range(0, len(latent), CHUNK):
        residual = np.array(latent[begin : begin + CHUNK], dtype=np.float64)
        for level, book in enumerate(codebooks):
            index, _ = nearest(residual, book)
            codes[begin : begin + CHUNK, level] = index
            residual -= book[index]
    return codes


def codeword_sum(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """The latent points (float64 [n, d']) that codes stand for: the sum of their codewords."""
    total = np.zeros((len(codes), codebooks[0].shape[1]))
    for level, book in enumerate(codebooks):
        total += book[codes[:, level]]
    return total


def fit_quantizer(
    kind: Kind, vectors: np.ndarray, config: QuantizerConfig, *, seed: int = 0, progress: Progress | None = None
) -> Quantizer:
    """Fit the quantizer named `kind` on item vectors (float [n, d]); the same seed and thread count, the same bytes.

    Raises UsageError for an unknown kind, DataError for vectors that are empty, ragged or not finite.
    """
    return _implementation(kind).fit(vectors, config, seed=seed, progress=progress)


def save_quantizer(quantizer: Quantizer, path: Path) -> None:
    """Write the quantizer, encoder included, as safetensors with its settings in the header."""
    from safetensors.numpy import save

    settings = json.dumps(
        {"format": FORMAT, "kind": quantizer.kind, "config": asdict(quantizer.config)}, sort_keys=True
    )
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in quantizer.tensors().items()}
    with atomic_write(Path(path), "wb") as handle:
        handle.write(save(tensors, metadata={HEADER: settings}))  # safetensors writes several keys in random order


def load_quantizer(path: Path) -> Quantizer:
    """Read what `save_quantizer` wrote; DataError when the file is missing, truncated or of another kind."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist.", hint="Build the catalogue again: gcrs catalog build.")
    try:
        with safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            tensors: dict[str, np.ndarray] = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a complete safetensors file: {error}.") from error
    try:
        settings: dict[str, Any] = json.loads(metadata[HEADER])
        if settings["format"] != FORMAT:
            raise DataError(f"{path} has format {settings['format']!r}, this version of gcrs reads {FORMAT}.")
        settings["config"]["hidden"] = tuple(settings["config"]["hidden"])
        config = QuantizerConfig(**settings["config"])
        return _implementation(settings["kind"]).from_tensors(tensors, config)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(f"{path} does not describe a quantizer: {error!r}.") from error


def check_tensors(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """DataError when a tensor is missing, unexpected, of another shape or not finite."""
    if set(tensors) != set(shapes):
        odd = ", ".join(sorted(set(tensors) ^ set(shapes)))
        raise DataError(f"The quantizer file has missing or unexpected tensors: {odd}.")
    for name, shape in shapes.items():
        if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
            raise DataError(f"The quantizer's {name} is {tensors[name].shape}, expected finite numbers {shape}.")


def _implementation(kind: str) -> Any:
    if kind == "rqkmeans":
        from gcrs.toolkit.ids.rqkmeans import RQKMeans

        return RQKMeans
    if kind == "rqvae":
        from gcrs.toolkit.ids.rqvae import RQVAE

        return RQVAE
    raise UsageError(f"The quantizer is {kind!r}, expected rqvae or rqkmeans.")
