"""RQ-VAE: an autoencoder whose latent space is residually quantized (Lee et al. 2022, Rajput et al. 2023).

Recipe of the paper: latent 32, seven layers, learning rate 1e-3, weight decay 1e-4, batch 1,024, codebooks started by
k-means. Codewords that a whole epoch does not use move onto latents that are served badly.

Knows nothing of items, collisions or files.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.kmeans import kmeans, nearest
from gcrs.toolkit.ids.quantizer import (
    Kind,
    Progress,
    QuantizerConfig,
    check_tensors,
    check_vectors,
    codeword_sum,
    residual_codes,
)


class RQVAE:
    """A fitted RQ-VAE: standardisation, encoder, one codebook a level, decoder. Runs on the CPU."""

    kind: ClassVar[Kind] = "rqvae"

    def __init__(self, network: Network, config: QuantizerConfig) -> None:
        self.config = config
        self.network = network.eval()
        self._exact = copy.deepcopy(self.network).double()  # codes do not depend on the batch that an item came in
        self.codebooks = [book.detach().numpy() for book in self._exact.codebooks]

    @classmethod
    def fit(
        cls, vectors: np.ndarray, config: QuantizerConfig, *, seed: int = 0, progress: Progress | None = None
    ) -> RQVAE:
        """Fit on float [n, d], n >= 1; `progress` hears (epoch, epochs, what with the loss).

        One seed and thread count give the same weights; the caller's random state is left alone.
        """
        vectors = check_vectors(vectors)
        data = torch.from_numpy(np.array(vectors, dtype=np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(data.shape[1], config)
            network.standardise(data)
            _train(network, data, config, np.random.default_rng(seed), progress)
        return cls(network, config)

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: QuantizerConfig) -> RQVAE:
        """The quantizer that `tensors` describes; DataError when one is missing or of the wrong shape."""
        mean = tensors.get("mean")
        if mean is None or mean.ndim != 1:
            raise DataError("The quantizer file has no mean vector.")
        network = Network(len(mean), config)
        check_tensors(tensors, {name: tuple(value.shape) for name, value in network.state_dict().items()})
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
        return cls(network, config)

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Number of codewords at each level."""
        return tuple(len(book) for book in self.codebooks)

    @property
    def width(self) -> int:
        """Numbers in an item's vector."""
        return len(self._exact.mean)

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """The encoder's output, float64 [n, latent]."""
        vectors = check_vectors(vectors, self.width)
        with torch.inference_mode():
            parts = [
                self._exact.encode(torch.from_numpy(np.array(vectors[begin : begin + 4096], dtype=np.float64))).numpy()
                for begin in range(0, len(vectors), 4096)
            ]
        return np.concatenate(parts)

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        """Greedy codes, int32 [n, levels]."""
        return residual_codes(self.latent(vectors), self.codebooks)

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """The decoder's output for the sum of the codewords, float32 [n, d]."""
        latent = torch.from_numpy(codeword_sum(codes, self.codebooks))
        with torch.inference_mode():
            return torch.cat([self._exact.decode(part) for part in latent.split(4096)]).float().numpy()

    def tensors(self) -> dict[str, np.ndarray]:
        """Every float32 weight of the network."""
        return {name: value.numpy() for name, value in self.network.state_dict().items()}


class Network(nn.Module):
    """Encoder, codebooks and decoder over standardised vectors."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, config: QuantizerConfig) -> None:
        super().__init__()
        widths = [width, *config.hidden, config.latent]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(1))
        self.encoder = _layers(widths)
        self.decoder = _layers(widths[::-1])
        self.codebooks = nn.ParameterList([torch.zeros(config.codes, config.latent) for _ in range(config.levels)])

    def standardise(self, data: Tensor) -> None:
        """Let inputs have zero mean and, over all coordinates together, unit variance."""
        self.mean.copy_(data.mean(dim=0))
        self.scale.fill_(max(float((data - self.mean).pow(2).mean().sqrt()), 1e-6))

    def encode(self, vectors: Tensor) -> Tensor:
        """Latents [b, latent] of vectors [b, d]."""
        return self.encoder((vectors - self.mean) / self.scale)

    def decode(self, latent: Tensor) -> Tensor:
        """Vectors [b, d] for latents [b, latent]."""
        return self.decoder(latent) * self.scale + self.mean

    def losses(self, vectors: Tensor, commitment: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruction loss (of standardised vectors), quantization loss, and each level's codes [b].

        Quantization, summed over levels l with residual r_l and codeword e_l: ||sg(r_l) - e_l||^2 + commitment
        ||r_l - sg(e_l)||^2, as means over coordinates. The decoder sees the latent moved onto the codewords' sum, with
        the gradient passed straight through.
        """
        latent = residual = self.encode(vectors)
        quantized, quantization, codes = torch.zeros_like(latent), latent.new_zeros(()), []
        for book in self.codebooks:
            with torch.no_grad():
                code = torch.cdist(residual, book, compute_mode="use_mm_for_euclid_dist").argmin(dim=1)
            word = book[code]
            quantization = quantization + F.mse_loss(word, residual.detach())
            quantization = quantization + commitment * F.mse_loss(residual, word.detach())
            quantized = quantized + word
            residual = residual - word.detach()
            codes.append(code)
        passed = latent + (quantized - latent).detach()
        target = (vectors - self.mean) / self.scale
        return F.mse_loss(self.decoder(passed), target), quantization, codes


def _layers(widths: list[int]) -> nn.Sequential:
    """Linear layers between the widths, ReLU between the layers; He initialisation keeps seven layers' signal alive."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        linear = nn.Linear(before, after)
        last = index == len(widths) - 2
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if last else "relu")
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def _train(
    network: Network, data: Tensor, config: QuantizerConfig, rng: np.random.Generator, progress: Progress | None
) -> None:
    network.train()
    _seed_codebooks(network, data, config, rng)
    weights = [*network.encoder.parameters(), *network.decoder.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": config.weight_decay},
            {"params": list(network.codebooks), "weight_decay": 0.0},
        ],
        lr=config.lr,
    )
    for epoch in range(config.epochs):
        used = [torch.zeros(config.codes, dtype=torch.long) for _ in network.codebooks]
        total = 0.0
        for batch in torch.randperm(len(data)).split(config.batch):
            reconstruction, quantization, codes = network.losses(data[batch], config.commitment)
            optimizer.zero_grad(set_to_none=True)
            (reconstruction + quantization).backward()
            optimizer.step()
            total += float(reconstruction.detach()) * len(batch)
            for count, code in zip(used, codes, strict=True):
                count += torch.bincount(code, minlength=config.codes)
        if epoch < config.epochs - 1:  # a codeword that has just moved is of no use without training after it
            _revive(network, optimizer, data, used, rng, config)
        if progress:
            progress(epoch + 1, config.epochs, f"RQ-VAE, reconstruction loss {total / len(data):.4f}")


def _sample(data: Tensor, config: QuantizerConfig, rng: np.random.Generator) -> Tensor:
    if len(data) <= config.sample:
        return data
    return data[torch.from_numpy(np.sort(rng.choice(len(data), size=config.sample, replace=False)))]


@torch.no_grad()
def _latents(network: Network, data: Tensor) -> np.ndarray:
    return torch.cat([network.encode(part) for part in data.split(4096)]).numpy()


def _seed_codebooks(network: Network, data: Tensor, config: QuantizerConfig, rng: np.random.Generator) -> None:
    """k-means of the untrained encoder's residuals at each level."""
    residual = _latents(network, _sample(data, config, rng))
    for book in network.codebooks:
        centres = kmeans(residual, config.codes, rng, iterations=min(config.iterations, 25))
        residual = residual - centres[nearest(residual, centres)[0]]
        book.data.copy_(torch.from_numpy(centres))


def _revive(
    network: Network,
    optimizer: torch.optim.Optimizer,
    data: Tensor,
    used: list[Tensor],
    rng: np.random.Generator,
    config: QuantizerConfig,
) -> None:
    """Put each codeword that no item chose onto a residual drawn in proportion to its squared distance."""
    if all(bool(count.all()) for count in used):
        return
    residual = _latents(network, _sample(data, config, rng))
    for book, count in zip(network.codebooks, used, strict=True):
        words = book.detach().numpy()
        dead = np.flatnonzero(count.numpy() == 0)
        index, distance = nearest(residual, words)
        weight = distance.astype(np.float64)
        if len(dead) and weight.sum() > 0:
            size = min(len(dead), int(np.count_nonzero(weight)))
            chosen = rng.choice(len(residual), size=size, replace=False, p=weight / weight.sum())
            book.data[torch.from_numpy(dead[:size])] = torch.from_numpy(residual[chosen])
            for moment in optimizer.state.get(book, {}).values():
                if isinstance(moment, Tensor) and moment.shape == book.shape:
                    moment[torch.from_numpy(dead[:size])] = 0
            index, _ = nearest(residual, words)  # `words` shares the codebook's memory
        residual = residual - words[index]
