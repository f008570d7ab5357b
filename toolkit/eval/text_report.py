"""An evaluation's report as lines of text for a terminal: every figure with its protocol, n and interval.

Knows nothing of how scores come about, nor of where the lines go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gcrs.toolkit.eval.significance import FLIPS
from gcrs.toolkit.eval.spread import CUTS

SHOWN = ("recall@1", "recall@5", "recall@10", "recall@50", "ndcg@10", "mrr@10")
GAPS = ("recall@1", "recall@10", "recall@50", "ndcg@10")  # metrics whose differences are shown
LEAST_P = 1.5 / FLIPS  # no p is below one round in all of them
SHORT = {"recall": "R", "ndcg": "N", "mrr": "M"}


def lines_of(report: Mapping[str, Any]) -> Iterator[str]:
    """The report, section by section; percent unless it says otherwise."""
    yield from _head(report)
    yield ""
    yield from _table(report["rows"], report)
    for name, lines in (
        ("intent", _intent),
        ("target", _target),
        ("likelihood", _likelihood),
        ("written", _written),
        ("spread", _spread),
        ("promises", _promises),
    ):
        if report.get(name):
            yield from lines(report[name])
    if report.get("compare"):
        yield from _compare(report["compare"])


def percent(found: Mapping[str, Any]) -> str:
    """A value with its interval, in percent; a dash where there are no cases."""
    if found["value"] is None:
        return "-"
    return f"{100 * found['value']:.2f} [{100 * found['lo']:.2f}, {100 * found['hi']:.2f}]"


def short(metric: str) -> str:
    """`R@10` for `recall@10`."""
    name, _, k = metric.partition("@")
    return f"{SHORT[name]}@{k}"


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    protocol, mode, settings = report["protocol"], report["mode"], report["settings"]
    (name, sha), *training = report["data"].items()
    yield f"bundle {report['bundle'][:12]} on {name} (SHA-256 {sha[:12]}): {report['dialogues']:,} dialogues"
    yield (
        f"model in {report['precision']} on {settings['device']}, {settings['beams']} beams or more, seed "
        f"{settings['seed']}, prompts of {report['prompt_budget']:,} tokens at most, gcrs {report['gcrs']}"
    )
    files = ", ".join(f"{name.removeprefix('train/')} (SHA-256 {sha[:12]})" for name, sha in training)
    yield f"popularity, and which items are cold: {report['popularity']}{f': {files}' if files else ''}"
    yield _seen(report["overlap"], report["dialogues"])
    yield f"protocol {protocol}: {report['protocols'][protocol]['what']}; {report['unit']}; {report['turns']}"
    yield f"mode {mode}: {report['modes'][mode]}"
    yield f"candidates: {report['candidates']:,} items ({report['items']}); {report['replies']:,} replies with items"
    unknown = report["unknown_gold"]
    if unknown["cases"]:
        how = "left out" if unknown["left_out"] else "counted as misses"
        named = ", ".join(unknown["items"][:5]) + (", …" if len(unknown["items"]) > 5 else "")
        yield f"gold items outside the catalogue: {unknown['cases']:,} cases, {how} ({named})"
    dialogues = report["protocols"][protocol]["dialogues"]
    what = "percent with the 95 % interval of a bootstrap over dialogues"
    yield f"n = {report['n']:,} cases in {dialogues:,} dialogues; {what}"


def _table(rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Iterator[str]:
    shown = with_first(rows)
    cells = [[short(metric) for metric in SHOWN]]
    cells += [[percent(row[metric]) if metric in row else "-" for metric in SHOWN] for row in shown]
    few = ["", *("" if row["n"] == report["n"] else f"   (n = {row['n']:,})" for row in shown)]
    lines = columns(["", *(row["name"] for row in shown)], cells)
    yield from (line + more for line, more in zip(lines, few, strict=True))
    others = [row for row in rows if "difference" in row]
    if others:
        cells = [[short(metric) for metric in GAPS]]
        cells += [
            [difference(row["difference"][metric]) if metric in row["difference"] else "-" for metric in GAPS]
            for row in others
        ]
        yield ""
        yield from columns([f"less {others[0]['against']}, points", *(row["name"] for row in others)], cells)
    yield ""
    yield from _original(report)


def with_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows, and after each that has some of the cases only the row that it is compared with, on the same cases."""
    out: list[Mapping[str, Any]] = []
    for row in rows:
        out.append(row)
        if "first_on_these" in row:
            said = {
                "name": f"  {row['against']}, on these",
                "role": "other",
                "about": "the first row on the same cases",
            }
            out.append(said | {"n": row["n"]} | row["first_on_these"])
    return out


def _original(report: Mapping[str, Any]) -> Iterator[str]:
    """The model by the data's own ids, of which several may be one item."""
    for protocol, held in report["original_ids"].items():
        row = held["forced"][0]
        shown = "; ".join(f"{short(metric)} {percent(row[metric])}" for metric in GAPS)
        yield (
            f"by original ids ({report['original_candidates']:,} candidates), {protocol}, forced, {row['name']}: "
            f"{shown} (n = {held['n']:,})"
        )


def columns(names: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: names to the left, cells to the right, each column as wide as it needs."""
    first = max(map(len, names)) + 2
    widths = [max(map(len, column)) + 3 for column in zip(*cells, strict=True)]
    return [
        f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for name, row in zip(names, cells, strict=True)
    ]


def difference(found: Mapping[str, float]) -> str:
    """A difference in points with its interval and p."""
    p = f"p = {found['p']:.4f}" if found["p"] > LEAST_P else "p <= 0.0001"
    return f"{100 * found['value']:+.2f} [{100 * found['lo']:+.2f}, {100 * found['hi']:+.2f}], {p}"


def _intent(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"intent, free (n = {found['n']:,} assistant turns, {found['gold_recommend']:,} of which recommend)"
    for name in ("accuracy", "precision", "recall"):
        of = "" if name == "accuracy" else " of recommend"
        yield f"  {name}{of}: {percent(found[name])} (n = {found[name]['n']:,})"


def _target(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"target step, forced, repeats counted (n = {found['n']:,} replies)"
    yield f"  precision (the best item is one of the reply's): {percent(found['precision'])}"
    places = ", ".join(f"{level} {count:,}" for level, count in found["leaves_gold_at"].items())
    yield f"  level at which it leaves the gold ID: {places}"
    error = 100 * found["calibration"]["error"]
    yield f"  calibration error of its probability: {error:.2f} points (n = {found['n']:,})"


def _likelihood(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"gold replies (n = {found['n']:,}; not percent)"
    for name in ("words", "spans", "all"):
        one = found[name]
        if one["perplexity"] is not None:
            yield f"  perplexity {one['perplexity']:.2f} on {one['tokens']:,} tokens: {one['on']}"
    if found["words"]["bits_per_byte"] is not None:
        yield f"  bits per byte {found['words']['bits_per_byte']:.3f} on the words' {found['words']['bytes']:,} bytes"


def _written(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"written replies (n = {found['n']:,}: {found['sample']}; {found['mode']})"
    for name, what in (
        ("names_its_target", "name their predicted target"),
        ("target_precision", "predicted target is one of the gold reply's"),
        ("lands_when_target_right", "name a gold item where the target is right"),
        ("lands_when_target_wrong", "name a gold item where the target is wrong"),
    ):
        yield f"  {what}: {percent(found[name])} (n = {found[name]['n']:,})"
    yield (
        f"  of {found['recommend']:,} that recommend: {found['recommends_another_item']} recommend an item that is "
        f"neither target nor the dialogue's; {found['names_another_of_the_dialogue']} name one of the dialogue's"
    )
    yield f"  titles withheld {found['titles_withheld']}, leaked {found['titles_leaked']}"
    yield (
        f"  not empty {found['non_empty']:,}, equal to another {found['repeat_another']:,} (but for items "
        f"{found['repeat_another_but_for_items']:,}), {found['mean_tokens']:.1f} tokens each"
    )
    yield f"  SacreBLEU {found['bleu']['value']:.2f}, an item span one token ({found['bleu']['signature']})"
    for way, per in (("distinct_per_ngram", "n-gram"), ("distinct_per_reply", "reply")):
        yield f"  Distinct-1..4 per {per}: {', '.join(f'{value:.3f}' for value in found[way].values())}"
    claims = found["claims"]
    kinds = ", ".join(f"{kind} {one['wrong']} of {one['stated']}" for kind, one in claims["by_kind"].items())
    wrong = f"{claims['wrong']} of {claims['stated']} ({kinds or '-'})"
    yield f"  facts stated that the catalogue does not bear out: {wrong}"
    if copied := found.get("copied"):
        yield (
            f"  longest run of tokens copied from training: {copied['longest']} (mean {copied['mean_longest']:.1f}); "
            f"whole replies: {copied['whole_replies']:,}"
        )
    if seeds := found.get("seeds"):
        one = seeds["bleu"]
        yield f"  {seeds['n']} seeds: SacreBLEU {one['mean']:.2f} ({one['least']:.2f} to {one['most']:.2f})"


def _promises(found: Mapping[str, int]) -> Iterator[str]:
    yield ""
    yield f"promises broken: {', '.join(f'{name} {count:,}' for name, count in found.items() if count) or 'none'}"


def _spread(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        f"spread, protocol {found['protocol']}, {found['mode']}, whatever is printed above "
        f"(n = {found['n']:,} rankings over {found['items']:,} items; percent, Gini 0..1)"
    )
    names = list(found["rows"])
    heads = [f"{what}@{k}" for k in CUTS for what in ("coverage", "Gini")]
    cells = [
        [said for k in CUTS for said in (f"{100 * row[f'coverage@{k}']:.2f}", f"{row[f'gini@{k}']:.3f}")]
        for row in found["rows"].values()
    ]
    yield from ("  " + line for line in columns(["", *names], [heads, *cells]))
    for name, what in (("popularity", "training mentions of the gold item"), ("items_named", "items named before")):
        held = [band for band in found[f"recall@10_by_{name}"] if band["n"]]
        yield f"  R@10 by {what}"
        rows = [[f"{band['n']:,}", *(percent(one) for one in band["rows"].values())] for band in held]
        lines = columns(["", *(band["band"] for band in held)], [["n", *held[0]["rows"]], *rows])
        yield from ("    " + line for line in lines)


def _seen(found: Mapping[str, Any], dialogues: int) -> str:
    """What training has seen of the dialogues, in a sentence that stands by every score."""
    if found["file"]:
        whose = "training data of this bundle" if found["file_of_bundle"] else f"the --train file {found['file']}"
        return f"FORCED: this file is {whose}, the scores say nothing about other dialogues"
    if found["dialogues"]:
        return f"FORCED: {found['dialogues']:,} of the {dialogues:,} dialogues stand in the --train files as well"
    if found["dialogues"] is None:
        return "overlap with training: none by the file's hash; its dialogues were not compared (--train FILE does)"
    return "overlap with training: none, by the file's hash and by each dialogue of the --train files"


def _compare(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"this run less that of bundle {found['bundle'][:12]}, same cases (other rows and metrics: --json)"
    for one in found["differs"]:
        here, there = ("none" if one[key] is None else one[key] for key in ("this", "other"))
        yield f"  not the same in both: {one['what']}, {here} here, {there} there"
    for protocol, why in found["not_compared"].items():
        yield f"  {protocol}: not compared ({why})"
    for protocol, rows in found["protocols"].items():
        for row in rows:
            if row["name"].startswith("model"):
                for metric in GAPS:
                    yield (
                        f"  {protocol}, {row['name']}, {short(metric)} (n = {row['n']:,}): "
                        f"{difference(row[metric]['difference'])}"
                    )
