"""A turn of three decisions against one plain generation and three calls; conversations and replies side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gcrs.toolkit.bench.limits import forwarding, recorded, tokens
from gcrs.toolkit.bench.measure import Row, Sample, pairs, seconds
from gcrs.toolkit.bench.simulated import dialogue, opened
from gcrs.toolkit.bench.workbench import greedy

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import ThreeSteps, Workbench
    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.engine import Engine, Sampling

PROMPT, REPLY = 300, 30
TOGETHER = 8  # replies at the same time


def three_calls(bundle: Bundle, engine: Engine) -> ThreeSteps:
    """The three decisions by the engine itself, target beam 1; `engine` writes replies of full length."""
    from gcrs.toolkit.dialogue.encode import encode_prompt

    def turn(context: Dialogue, sampling: Sampling) -> int:
        header = encode_prompt(context, bundle.tokens, bundle.book)
        engine.intent(header, allow=frozenset({"recommend"}))
        best = engine.targets([*header, bundle.tokens.rec], k=1, beams=1)[0]
        span = bundle.tokens.span(best.semantic_id)
        prompt = [*header, bundle.tokens.rec, *span, bundle.tokens.resp]
        for _ in engine.respond(prompt, licensed=[best.item_id], sampling=sampling):
            pass
        return len(prompt) - len(header) + sampling.max_tokens

    return turn


def turn(bench: Workbench) -> list[Row]:
    """Tokens forwarded and seconds of a turn, against `generate` once and three times."""
    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.model.engine import Sampling
    from gcrs.toolkit.model.grammar import IntentGrammar, TargetGrammar
    from gcrs.toolkit.model.processor import MaskProcessor

    bundle, engine = bench.bundle, bench.engine()
    space, model = bundle.tokens, engine.model.model
    context = opened(bundle.book, space, bench.pick(PROMPT, PROMPT // 3))
    header = encode_prompt(context, space, bundle.book)
    steps = (bench.three_steps or three_calls)(bundle, engine)
    sampling = Sampling(seed=0, max_tokens=bench.pick(REPLY, REPLY // 3))
    made = 0

    def ours() -> None:
        nonlocal made
        engine.close()
        made = steps(context, sampling)

    def once() -> list[int]:
        return greedy(model, header, made, space)

    def thrice() -> None:
        start = len(header)
        free = IntentGrammar(space, frozenset({"recommend"}))
        intent = greedy(model, header, 1, space, MaskProcessor(free, start=start))
        target = TargetGrammar(space, engine.tree)
        prompt = [*header, *intent]
        span = greedy(model, prompt, engine.tree.levels + 2, space, MaskProcessor(target, start=start + 1))
        prompt += [*span, space.resp]
        greedy(model, prompt, made - (len(prompt) - start), space)

    with recorded(model) as mine:
        ours()
    with recorded(model) as other:
        once()
    repeats = bench.pick(5, 1)
    wall, own, plain = pairs(ours, once, repeats)
    calls, own_again, three = pairs(ours, thrice, repeats)
    limit = forwarding(bench.rates(), model, mine)
    shape = {"prompt": len(header), "made": made}
    forwarded = tokens(mine) / tokens(other)
    return [
        Row(
            "turn-tokens", "tokens forwarded in a three-step turn, target beam 1", "ratio", Sample.of([forwarded]),
            1.02, baseline="one generate() of as many tokens",
            details=shape | {"ours": tokens(mine), "theirs": tokens(other)},
        ),
        Row(
            "turn-wall", "the same turn in seconds", "ratio", wall, 1.1, baseline="one greedy generate()",
            ours=own, theirs=plain, limit=limit, details=shape,
        ),
        Row(
            "turn-calls", "the same turn in seconds", "ratio", calls, 0.75, baseline="three generate() calls",
            ours=own_again, theirs=three, limit=limit, details=shape,
        ),
    ]  # fmt: skip


def sessions(bench: Workbench) -> list[Row]:
    """Prompt tokens forwarded for interleaved conversations, with the pool of prefixes and with one prefix alone.

    Counted on a small random model with the bundle's tokens, its bound scaled to the real model's keys and values.
    """
    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.model.cache import LIMIT
    from gcrs.toolkit.model.engine import Engine

    bundle = bench.bundle
    space, book = bundle.tokens, bundle.book
    count, turns = bench.pick(50, 8), bench.pick(4, 2)
    talks = [dialogue(book, seed, 2 * turns) for seed in range(count)]
    prompts = [
        [encode_prompt(talk[: 2 * turn + 1], space, book) for talk in talks] for turn in range(turns)
    ]  # everybody's first message, everybody's second, …
    small = _small_model(space.size)
    real, width = bench.engine().model.model.config.get_text_config(), bench.engine().model.model.dtype.itemsize
    scale = _entry(small.config, 4) / _entry(real, width)
    pooled = Engine(small, space, book, cache_bytes=int(LIMIT * scale))
    single = Engine(small, space, book, cache_bytes=0)
    taken = []
    for engine in (pooled, single):
        taken.append(seconds(lambda engine=engine: [engine.intent(one) for turn in prompts for one in turn]))  # type: ignore[misc]
    ours, theirs = pooled.stats.intent.forwarded, single.stats.intent.forwarded
    stats = pooled.pool.stats
    details = {"sessions": count, "turns": turns, "ours": ours, "theirs": theirs, "reused": stats.reused,
               "hits": stats.hits, "forks": stats.forks, "evictions": stats.evictions,
               "megabytes": pooled.pool.nbytes / scale / 1e6}  # fmt: skip
    what = f"prompt tokens forwarded, {count} interleaved conversations of {turns} turns, 1 GiB"
    value = Sample.of([ours / theirs])
    return [Row("sessions", what, "ratio", value, baseline="one prefix cache, as before", details=details)]


def replies(bench: Workbench) -> list[Row]:
    """Replies that are written at the same time, in a thread each, against the same ones one after the other.

    The prompts have been read on both sides, so what counts are the replies' tokens.
    """
    from concurrent.futures import ThreadPoolExecutor

    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.model.engine import Sampling

    bundle, engine = bench.bundle, bench.engine()
    space, book = bundle.tokens, bundle.book
    count, length = bench.pick(TOGETHER, 3), bench.pick(REPLY, REPLY // 3)
    prompts = [[*encode_prompt(dialogue(book, seed, 5), space, book), space.chat, space.resp] for seed in range(count)]

    def ready() -> None:
        engine.close()
        for prompt in prompts:
            engine.intent(prompt)

    def write(n: int) -> None:
        for _ in engine.respond(prompts[n], licensed=[], sampling=Sampling(seed=n, max_tokens=length)):
            pass

    with ThreadPoolExecutor(count) as pool:
        value, ours, theirs = pairs(
            lambda: list(pool.map(write, range(count))),
            lambda: list(map(write, range(count))),
            bench.pick(5, 1),
            before=ready,
        )
    stats = engine.stats.respond
    details = {"replies": count, "tokens": length, "prompt": sum(map(len, prompts)) / count,
               "read_together": stats.shared / max(1, stats.joined)}  # fmt: skip
    what = f"{count} replies of {length} tokens at the same time"
    return [
        Row("replies", what, "ratio", value, baseline="one after the other", ours=ours, theirs=theirs, details=details)
    ]


def _entry(config: Any, width: int) -> int:
    """Bytes of one token's keys and values."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * int(head) * width


def _small_model(rows: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
        config = LlamaConfig(vocab_size=rows, max_position_embeddings=8192, tie_word_embeddings=True, **sizes, **heads)
        return LlamaForCausalLM(config).eval()
