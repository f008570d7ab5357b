"""What every test shares: isolated caches, no network, few threads, and the fixtures that say why they skip."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # one of several processes that share out the tests; None: the only one
if WORKER is None:  # gcrs itself keeps its journals where GCRS_DATA says: ours get a place below
    os.environ["GCRS_REAL_DATA"] = os.environ.pop("GCRS_DATA", "")


def pytest_configure(config: pytest.Config) -> None:
    """Before any import of ours: a cache and a data directory of this run's own; the weights alone are shared."""
    from gcrs.toolkit.files import cache_dir

    real = cache_dir()
    scratch = tempfile.TemporaryDirectory(prefix="gcrs-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(scratch.cleanup)
    cache = Path(scratch.name, "cache")
    cache.mkdir()
    for shared in ("weights", "bases"):  # pinned bytes, checked at every load: safe to share, slow to make again
        (real / shared).mkdir(parents=True, exist_ok=True)
        (cache / shared).symlink_to((real / shared).resolve(), target_is_directory=True)
    os.environ["GCRS_CACHE"] = str(cache)
    os.environ["GCRS_DATA"] = str(Path(scratch.name, "data"))
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"
    os.environ["ANONYMIZED_TELEMETRY"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    several = WORKER or getattr(config.option, "numprocesses", None)  # workers inherit what the first process sets
    os.environ.setdefault("OMP_NUM_THREADS", "1" if several else "2")
    os.environ.pop("NO_COLOR", None)
    os.environ.pop("FORCE_COLOR", None)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine fails the test. The session fixtures that fetch weights run before."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test opened a connection to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data sets (redial/, movies/ …): $GCRS_DATA, else shared/data beside the checkout."""
    folder = Path(os.environ["GCRS_REAL_DATA"] or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: set GCRS_DATA to the folder that holds redial/ and movies/")
    return folder


def _weights(name: str) -> Path:
    from filelock import FileLock

    from gcrs.toolkit.errors import MissingModelError
    from gcrs.toolkit.files import cache_dir
    from gcrs.toolkit.model.base import DEFAULT_BASE, find_base
    from gcrs.toolkit.weights import fetch

    try:
        with FileLock((cache_dir() / "weights").resolve() / ".tests.lock"):  # one process fetches and converts
            place = fetch(name)
            if name == DEFAULT_BASE:
                find_base(name)
            return place
    except MissingModelError as error:
        pytest.skip(f"the weights {name} are not here and could not be fetched: {error.message[:200]}")


@pytest.fixture(scope="session")
def base_weights() -> Path:
    """The pinned base model's GGUF, fetched once a machine."""
    return _weights("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def encoder_weights() -> Path:
    """The pinned sentence encoder's folder, fetched once a machine."""
    return _weights("minilm-l6-v2")


@pytest.fixture(scope="session")
def movies_bundle() -> Path:
    """The shipped bundle."""
    bundle = ROOT / "catalogs" / "movies"
    if not (bundle / "gcrs.json").is_file():
        pytest.skip("catalogs/movies is not in this checkout: train it first (docs/cli.md, finetune)")
    return bundle


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test with an empty working directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture(scope="session")
def toy_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder in the Hugging Face layout: two layers, random weights from a seed, bytes as tokens."""
    import json

    import torch
    from transformers import BertConfig, BertModel

    from toys import toy_tokenizer_json

    folder = tmp_path_factory.mktemp("encoder")
    specials = ("[PAD]", "[UNK]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=256 + len(specials), initializer_range=1.0, **sizes))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(toy_tokenizer_json(specials), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def toy_base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in the Hugging Face layout: the toy Llama without our tokens."""
    from toys import toy_model, toy_tokens

    folder = tmp_path_factory.mktemp("base")
    tokens = toy_tokens()
    toy_model(tokens, vocab_size=tokens.base_rows).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokens.base_json, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def toy_bundle(toy_encoder_dir: Path, toy_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle over the toy films, taught for two steps, its licence and attribution stated."""
    from gcrs.toolkit.catalog.readers import write_items
    from gcrs.toolkit.dialogue.turns import write_dialogues
    from gcrs.toolkit.model.finetune import finetune
    from gcrs.toolkit.model.finetune_config import FinetuneConfig
    from gcrs.toolkit.prepared import BuildConfig, PreparedCatalog
    from toys import toy_catalog, toy_dialogues

    root = tmp_path_factory.mktemp("toy-bundle")
    write_items(toy_catalog(), root / "films.jsonl")
    write_dialogues(toy_dialogues(), root / "train.jsonl")
    shape = BuildConfig(encoder=str(toy_encoder_dir), levels=3, codes=8)
    PreparedCatalog.build(toy_catalog(), shape).save(root / "catalog")
    told = {"licence": "CC-BY-4.0", "attribution": "Films by the makers of\nthe tests."}
    settings: dict[str, Any] = {"rank": 2, "steps": 2, "threads": 1, "made": 20, "eval_limit": 5, **told}
    dialogues = (root / "train.jsonl",)
    places: dict[str, Any] = {"catalog": root / "catalog", "out": root / "toy", "base": str(toy_base_dir)}
    finetune(FinetuneConfig(dialogues=dialogues, **places, **settings))
    return root / "toy"


@pytest.fixture(scope="session")
def served(toy_bundle: Path) -> Iterator[Any]:
    """`gcrs serve --http` over the toy bundle, for every test that changes nothing of it but sessions."""
    from serving_helpers import CLI, serving

    with serving([*CLI, "serve", "--http", "--bundle", str(toy_bundle), "--port", "0"]) as server:
        yield server
