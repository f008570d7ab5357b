"""A collaborative part of the item vector: items that people mention together come close.

Source: truncated SVD of the shifted positive pointwise mutual information of co-mentions (Levy & Goldberg, 2014).
Knows nothing of text, codes or the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

BLOCK = 65_536  # known items that are compared at a time


def co_mention_vectors(
    baskets: Iterable[Sequence[str]], item_ids: Sequence[str], *, dim: int = 64, shift: float = 1.0, seed: int = 0
) -> np.ndarray:
    """L2-normalised float32 [items, dim]; rows of items that were never mentioned with another are zero.

    A basket is the items of one dialogue; ids outside `item_ids` are ignored. Counts are smoothed by the power 0.75
    of the context's frequency; `shift` is subtracted from the PMI.
    """
    import torch

    row = {item_id: n for n, item_id in enumerate(item_ids)}
    left: list[int] = []
    right: list[int] = []
    for basket in baskets:
        rows = sorted({row[i] for i in basket if i in row})
        for a in rows:
            for b in rows:
                if a != b:
                    left.append(a)
                    right.append(b)
    n = len(item_ids)
    out = np.zeros((n, dim), dtype=np.float32)
    if not left:
        return out
    keys, counts = np.unique(np.asarray(left, np.int64) * n + np.asarray(right, np.int64), return_counts=True)
    i, j = keys // n, keys % n
    totals = np.bincount(i, weights=counts, minlength=n)
    smooth = totals**0.75
    pmi = np.log(counts * smooth.sum() / (totals[i] * smooth[j])) - np.log(max(shift, 1e-9))
    keep = pmi > 0
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([i[keep], j[keep]])), torch.from_numpy(pmi[keep].astype(np.float32)), (n, n)
    )
    rank = min(dim, n)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, _ = torch.svd_lowrank(matrix.coalesce(), q=rank, niter=4)
    vectors = (u * s.clamp_min(0).sqrt()).numpy()
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out[:, :rank] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-8)
    out[totals == 0] = 0
    return out


def estimated_vectors(
    text: np.ndarray, known_text: np.ndarray, known_together: np.ndarray, near: int = 10
) -> np.ndarray:
    """Float32 [n, dim]: what items that nobody has mentioned yet are likely to be mentioned with.

    The mean co-mention part (`known_together`, [items, dim]) of the `near` items whose text part (`known_text`) has the
    largest cosine with the newcomer's `text` ([n, width]). A zero vector would put every newcomer beside the items that
    are never mentioned.
    """
    best = np.full((len(text), 0), 0.0)
    rows = np.zeros((len(text), 0), dtype=np.int64)
    for begin in range(0, len(known_text), BLOCK):
        block = known_text[begin : begin + BLOCK]
        norms = np.linalg.norm(block, axis=1)
        cosine = text @ block.T / np.where(norms > 0, norms, 1.0)
        best = np.concatenate([best, cosine], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(begin, begin + len(block)), cosine.shape)], axis=1)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :near]
        best, rows = np.take_along_axis(best, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
    return known_together[rows].mean(axis=1).astype(np.float32)
