"""Both quantizers: same seed same codes, a code does not depend on the batch, files round trip or are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.ids.kmeans import kmeans, nearest, squared_distances
from gcrs.toolkit.ids.quantizer import Kind, Quantizer, QuantizerConfig, fit_quantizer, load_quantizer, save_quantizer

KINDS: list[Kind] = ["rqkmeans", "rqvae"]
CONFIG = QuantizerConfig(levels=3, codes=8, latent=8, hidden=(32, 16), epochs=60, batch=64, lr=3e-3)
SHORT = replace(CONFIG, epochs=3)


def clusters(n: int = 240, d: int = 12, seed: int = 0) -> np.ndarray:
    """Points around eight centres, float32 [n, d]."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, d)) * 3
    return (centres[np.arange(n) % 8] + rng.standard_normal((n, d)) * 0.5).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: pytest.FixtureRequest) -> Quantizer:
    return fit_quantizer(request.param, clusters(), CONFIG)


def test_codes_are_in_range_and_the_coarse_one_is_the_cluster(fitted: Quantizer) -> None:
    codes = fitted.codes(clusters())
    assert codes.shape == (240, 3)
    assert codes.dtype == np.int32
    assert fitted.code_counts == (8, 8, 8)
    assert codes.min() >= 0
    assert codes.max() < 8
    pairs = {(i % 8, int(code)) for i, code in enumerate(codes[:, 0])}
    assert len(pairs) < 20  # 8 would be perfect, 64 is chance


def test_codes_reconstruct_the_vectors(fitted: Quantizer) -> None:
    vectors = clusters()
    rebuilt = fitted.reconstruct(fitted.codes(vectors))
    assert rebuilt.shape == vectors.shape
    assert np.square(vectors - rebuilt).mean() < 0.2 * vectors.var(axis=0).mean()


def test_an_item_coded_alone_has_the_code_that_it_has_in_the_catalogue(fitted: Quantizer) -> None:
    vectors = clusters()
    alone = np.concatenate([fitted.codes(vector[None]) for vector in vectors])
    assert (alone == fitted.codes(vectors)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes_and_the_callers_random_state_is_left_alone(kind: Kind, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_quantizer(fit_quantizer(kind, clusters(), SHORT, seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert torch.equal(torch.random.get_rng_state(), state)


def test_files_round_trip(fitted: Quantizer, tmp_path: Path) -> None:
    path = tmp_path / "codebook.safetensors"
    save_quantizer(fitted, path)
    again = load_quantizer(path)
    assert again.kind == fitted.kind
    assert again.config == fitted.config
    assert (again.codes(clusters(seed=5)) == fitted.codes(clusters(seed=5))).all()


def test_broken_files_are_refused(fitted: Quantizer, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "codebook.safetensors"
    with pytest.raises(DataError, match="does not exist"):
        load_quantizer(path)
    save_quantizer(fitted, path)
    whole = path.read_bytes()
    for broken in (b"", b"not a tensor file at all", whole[:40], whole[:-8]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a complete safetensors file"):
            load_quantizer(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(DataError, match="does not describe a quantizer"):
        load_quantizer(path)
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 2'))
    with pytest.raises(DataError, match="has format 2, this version of gcrs reads 1"):
        load_quantizer(path)
    path.write_bytes(whole.replace(b'\\"codes\\": 8', b'\\"codes\\": 9'))
    with pytest.raises(DataError, match="codebook"):
        load_quantizer(path)
    path.write_bytes(whole.replace(b'\\"kind\\"', b'\\"knid\\"'))
    with pytest.raises(DataError, match="does not describe a quantizer"):
        load_quantizer(path)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_and_equal_items_are_no_trouble(kind: Kind) -> None:
    for vectors in (clusters(3), clusters(1), np.ones((5, 12), dtype=np.float32), np.zeros((4, 12), dtype=np.float32)):
        quantizer = fit_quantizer(kind, vectors, SHORT)
        codes = quantizer.codes(vectors)
        assert np.isfinite(quantizer.reconstruct(codes)).all()
        if len(np.unique(vectors, axis=0)) == 1:
            assert len(np.unique(codes, axis=0)) == 1


def test_bad_input_is_one_sentence(fitted: Quantizer) -> None:
    bad = clusters()
    bad[7, 3] = np.nan
    with pytest.raises(DataError, match="row 7 has a value that is not finite"):
        fit_quantizer("rqkmeans", bad, CONFIG)
    with pytest.raises(DataError, match="at least one row"):
        fit_quantizer("rqkmeans", np.zeros((0, 4), dtype=np.float32), CONFIG)
    with pytest.raises(DataError, match="have 5 numbers, the quantizer was fitted on 12"):
        fitted.codes(np.zeros((2, 5), dtype=np.float32))
    with pytest.raises(UsageError, match="expected rqvae or rqkmeans"):
        fit_quantizer("pq", clusters(), CONFIG)  # type: ignore[arg-type]
    for wrong in ({"levels": 0}, {"levels": 27}, {"codes": 1}, {"epochs": 0}):
        with pytest.raises(UsageError):
            replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_progress_reaches_its_total(fitted: Quantizer) -> None:
    heard: list[tuple[int, int, str]] = []
    fit_quantizer(fitted.kind, clusters(), SHORT, progress=lambda done, total, what: heard.append((done, total, what)))
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)
    assert heard[-1][0] == heard[-1][1]


def test_nearly_all_codewords_are_used(fitted: Quantizer) -> None:
    codes = fitted.codes(clusters())
    assert all(len(np.unique(codes[:, level])) >= 7 for level in range(3))


def test_kmeans_finds_clusters_that_are_there() -> None:
    points = np.array([[0.0], [0.2], [10.0], [10.2], [20.0]])
    assert np.allclose(np.sort(kmeans(points, 3, np.random.default_rng(0))[:, 0]), [0.1, 10.1, 20.0])
    index, distance = nearest(np.array([[9.0], [16.0]]), np.array([[0.0], [10.0], [20.0]]))
    assert index.tolist() == [1, 2]
    assert distance.tolist() == [1.0, 16.0]
    assert np.allclose(squared_distances(np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]])), 25.0)
