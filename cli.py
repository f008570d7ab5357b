"""The verbs of `gcrs`: reads flags, calls the parts, prints. The only module that prints.

Results go to stdout, messages and progress to stderr. Every failure is one sentence and an exit code: 1 failed, 2
usage, 3 bad data, 4 missing model or weights, 130 interrupted. Imports nothing heavy until a verb needs it.
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gcrs.toolkit.errors import DataError, GcrsError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gcrs.programs.loading import Talker
    from gcrs.programs.mixture_search import TuneConfig
    from gcrs.toolkit.catalog.feeds import FeedReport
    from gcrs.toolkit.catalog.item import Catalog, Item
    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.prepared import PreparedCatalog
    from gcrs.toolkit.ray_data import RayConfig

Progress = Callable[[int, int, str], None]
MOST_JOINED = 20  # items whose new IDs `catalog add` prints
MOST_PAIRS = 20  # near-duplicates that `catalog check` prints
STARTED = time.perf_counter()

app = typer.Typer(
    name="gcrs",
    help="A generative conversational recommender over the catalogue that you bring.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: half the start-up time
)
catalog_app = typer.Typer(help="Build, show, check and change a catalogue with semantic IDs.")
data_app = typer.Typer(help="Public data sets as gcrs dialogues.")
app.add_typer(catalog_app, name="catalog")
app.add_typer(data_app, name="data")

CatalogArgument = Annotated[str, typer.Argument(metavar="DIR|FILE", help="A prepared catalogue, a bundle, or items.")]
RemoteArgument = Annotated[str, typer.Argument(metavar="REMOTE", help="./DIR, file:///DIR, OWNER/NAME of the hub.")]
BundleFlag = Annotated[str, typer.Option("--bundle", metavar="DIR|NAME", help="A bundle's directory or name.")]
WhereFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="RULE", help="Such as 'year>=2000 and not genre=horror' (docs/formats.md); repeatable."
    ),
]
AllowFlag = Annotated[
    Path | None, typer.Option("--allow", metavar="FILE", help="Only the ids in this file: one a line, or a JSON list.")
]
OrUnknownFlag = Annotated[
    bool, typer.Option("--or-unknown", help="Items whose value is missing satisfy a rule as well.")
]
ExcludeFlag = Annotated[list[str] | None, typer.Option("--exclude", metavar="ID", help="Never this item; repeatable.")]
ChangedFlag = Annotated[str, typer.Option("--bundle", metavar="DIR|NAME", help="The bundle to change for this user.")]
IdsArgument = Annotated[list[str], typer.Argument(metavar="ID…", help="Item ids or aliases; all of them or none.")]
DeviceFlag = Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where the model runs.")]
ChromaFlag = Annotated[
    str | None, typer.Option("--chroma-url", metavar="URL", help="A Chroma server for the facts; default: embedded.")
]
EngineFlag = Annotated[
    Literal["local", "vllm"], typer.Option("--engine", help="Where the model decodes: here, or at --api-base.")
]
ApiBaseFlag = Annotated[
    str | None, typer.Option("--api-base", metavar="URL", help="The vLLM server's, such as http://127.0.0.1:8000/v1.")
]
WorkersFlag = Annotated[
    int, typer.Option("--workers", metavar="N", min=0, help="Processes on Ray Data, a CPU each; 0: this one alone.")
]
RayFlag = Annotated[
    str | None, typer.Option("--ray-address", metavar="ADDR", help="A running Ray cluster; default: this machine.")
]
GpusFlag = Annotated[float, typer.Option("--gpus", metavar="G", min=0, help="Share of a GPU that a worker takes.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout (docs/cli.md).")]
ConfigFlag = Annotated[
    str | None, typer.Option("--config", metavar="YAML|NAME", help="Settings, or a recipe's name; flags win over it.")
]
MethodFlag = Annotated[Literal["lora", "full"] | None, typer.Option(help="Adapters, or all linear layers.")]
StepsFlag = Annotated[int | None, typer.Option(metavar="N", help="Budget in steps: equal bytes for equal runs.")]
MinutesFlag = Annotated[float | None, typer.Option(metavar="M", help="Budget in minutes.")]
MixtureFlag = Annotated[
    Path | None, typer.Option("--mixture", metavar="YAML", help="Shares of the tokens by task (docs/mixture.md).")
]
RatingsFlag = Annotated[
    list[Path] | None, typer.Option("--ratings", metavar="FILE", help="CSV of user,item,rating; repeatable.")
]
TalkFlag = Annotated[
    list[Path] | None, typer.Option("--chat", metavar="FILE", help="Talk without items, as dialogues; repeatable.")
]
SettingsFlag = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; repeatable.")
]
SeedFlag = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]


class Interrupted(GcrsError):
    """The verb was asked to stop and kept what it had."""

    exit_code = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code; prints, never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # bytes that are no text, or text that the terminal lacks, end nothing
            stream.reconfigure(errors="replace")
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' own bars: we have ours
    debug = bool(os.environ.get("GCRS_DEBUG"))
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # libraries' advice to programmers
            code = app(arguments, prog_name="gcrs", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except GcrsError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:  # unknown flags, values of the wrong kind
        where = getattr(getattr(error, "ctx", None), "command_path", "gcrs")
        message = error.format_message().replace("Value error, ", "")
        return _fail(f"{_sentence(message)} See: {where} --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except SystemExit as stop:  # typer's own answer to a closed pipe
        _discard_stdout()
        return 0 if isinstance(stop.__context__, BrokenPipeError) else int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.strerror:
            where = f" ({error.filename})" if error.filename else ""
            _discard_stdout()
            return _fail(f"The system refused: {error.strerror}{where}.", 1)
        if isinstance(error, ModuleNotFoundError):
            return _fail(f"The package {error.name} is not installed. Install gcrs with all it needs: make install", 1)
        found = " ".join(str(error).split())[:200]
        what = f"{type(error).__name__}{f' ({found})' if found else ''}"
        return _fail(f"Unexpected {what}; run with GCRS_DEBUG=1 for the traceback.", 1)


def run() -> None:
    """The `gcrs` command: `main`, then an end without taking a model apart piece by piece (0.2 s)."""
    code = main()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def _fail(sentence: str, code: int) -> int:
    with suppress(OSError):
        print(f"gcrs: error: {sentence}", file=sys.stderr, flush=True)
    return code


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail a second time."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    """A message: stderr, plain."""
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _plain(stream: Any) -> bool:
    """No colour and no bars: off a terminal, under NO_COLOR, or on a terminal that can do neither."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    plain = _plain(sys.stderr if stderr else sys.stdout)
    return Console(stderr=stderr, no_color=plain, highlight=False, emoji=False, soft_wrap=plain)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A `progress(done, total, what)` for the parts: bars with time left on a terminal, a line every 30 s elsewhere."""
    if _plain(sys.stderr):
        from gcrs.programs.progress_lines import ProgressLines

        yield ProgressLines(_say)
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=_console(stderr=True), transient=True) as bars:
        task: TaskID | None = None
        last = (0, 0)

        def report(done: int, total: int, what: str) -> None:
            nonlocal task, last
            if task is None or total != last[1] or done < last[0]:  # another stage has begun
                if task is not None:
                    bars.remove_task(task)
                task = bars.add_task(what, total=total or None)
            last = (done, total)
            bars.update(task, completed=done, description=what)

        yield report


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from gcrs import __version__

        print(f"gcrs {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        _say(context.get_help())
        raise typer.Exit(2)


# ------------------------------------------------------------------------------------------------------ catalogue


@catalog_app.command("build")
def catalog_build(
    items: Annotated[Path, typer.Argument(metavar="ITEMS", help="CSV, JSON Lines, Parquet or a product feed.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write.")],
    encoder: Annotated[
        str,
        typer.Option(help="Text encoder: minilm, bge-large-en-v1.5, …, a hub id or a directory (docs/encoders.md)."),
    ] = "minilm",
    quantizer: Annotated[Literal["rqvae", "rqkmeans"], typer.Option(help="How vectors become codes.")] = "rqkmeans",
    levels: Annotated[int | None, typer.Option(help="Codes in a semantic ID; default: by the items' number.")] = None,
    codes: Annotated[int | None, typer.Option(help="Codewords a level; default: by the items' number.")] = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column that the encoder reads; repeatable."),
    ] = None,
    dialogues: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Dialogues whose co-mentions shape the IDs; repeatable.")
    ] = None,
    collaborative: Annotated[
        float | None, typer.Option(metavar="0..1", help="Share of the co-mentions in the item vector; default 0.3.")
    ] = None,
    seed: SeedFlag = 0,
    device: Annotated[str, typer.Option(help="Where the encoder computes: cpu or cuda.")] = "cpu",
    workers: WorkersFlag = 0,
    ray_address: RayFlag = None,
    gpus: GpusFlag = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Give every item of a file its semantic ID; ends with a health report."""
    from gcrs.toolkit.catalog.duplicates import check_buildable
    from gcrs.toolkit.catalog.readers import read_items
    from gcrs.toolkit.catalog.text_columns import text_columns
    from gcrs.toolkit.prepared import BuildConfig, PreparedCatalog, check_replaceable

    if collaborative and not dialogues:
        raise UsageError("--collaborative needs co-mentions.", hint="Pass --dialogues FILE.")
    share = (0.3 if collaborative is None else collaborative) if dialogues else 0.0
    columns = tuple(text_column) if text_column else None
    config = BuildConfig(encoder, quantizer, levels, codes, columns, share, seed, device)
    check_replaceable(out)
    feeds: list[FeedReport] = []
    catalog = read_items(items, feeds.append)
    check_buildable(catalog)
    chosen = text_columns(catalog, columns)
    for line in [*_feed_lines(feeds), *chosen.lines()]:
        _say(line)
    with _progress() as progress:
        baskets = _baskets(dialogues or [], catalog)
        ray = _ray(workers, ray_address, gpus, device)
        prepared = PreparedCatalog.build(catalog, config, baskets=baskets, progress=progress, ray=ray)
        prepared.save(out)
    if as_json:
        text = {"columns": chosen.columns, "left_out": chosen.left_out}
        feed = feeds[0].to_json() if feeds else None
        _print_json({"out": str(out), "hash": prepared.hash, "health": prepared.health, "feed": feed, "text": text})
        return
    for line in prepared.report.lines() if prepared.report else ():
        print(line)
    print(f"written: {out} (hash {prepared.hash[:12]})")


def _ray(workers: int, address: str | None, gpus: float, device: str) -> RayConfig | None:
    """The flags about workers; None: this process does the work."""
    if not workers:
        if address is not None or gpus:
            raise UsageError("--ray-address and --gpus are for workers.", hint="Pass --workers N.")
        return None
    if (gpus > 0) != (device != "cpu"):
        hint = "Pass both --device cuda and --gpus 1, or neither."
        raise UsageError(f"--gpus is {gpus:g} and --device {device}.", hint=hint)
    from gcrs.toolkit.ray_data import RayConfig

    return RayConfig(workers, address, gpus)


def _feed_lines(feeds: Sequence[FeedReport]) -> list[str]:
    return [line for feed in feeds for line in feed.lines()]


def _baskets(files: list[Path], catalog: Catalog) -> list[list[str]]:
    """The items of each dialogue, as the catalogue's own ids."""
    from gcrs.toolkit.dialogue.turns import read_dialogues

    return [
        sorted({catalog.canonical(item) for turn in dialogue.turns for item in turn.mentions if item in catalog})
        for file in files
        for dialogue in read_dialogues(file)
    ]


@catalog_app.command("show")
def catalog_show(
    source: CatalogArgument,
    query: Annotated[str | None, typer.Argument(metavar="[ID|TITLE]", help="One item instead of the summary.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What a catalogue holds: its columns, its semantic IDs, or one item with all its facts."""
    feeds: list[FeedReport] = []
    catalog, prepared, live = _open_live(source, feeds)
    book = live.edition.book if live else prepared.book if prepared else None
    if query is not None:
        items = _find(catalog, query)
        retired = live.edition.retired if live else frozenset()
        found = [_item_json(item, book) | ({"retired": True} if item.id in retired else {}) for item in items]
        if as_json:
            _print_json({"items": found})
        for facts in [] if as_json else found:
            for name, value in facts.items():
                print(f"{name}: {_plain_value(value)}")
            print()
        return
    coverage = {column: sum(column in item.facts for item in catalog) for column in catalog.columns}
    summary: dict[str, Any] = {
        "items": len(catalog),
        "columns": {name: {"type": kind, "filled": coverage[name]} for name, kind in catalog.columns.items()},
        "codes": list(book.codes) if book else None,
        "hash": prepared.hash if prepared else None,
        "settings": prepared.settings if prepared else None,
        "feed": feeds[0].to_json() if feeds else None,
    }
    if live:
        summary |= _changes_json(live)
    if as_json:
        _print_json(summary)
        return
    print(f"{len(catalog)} items in {source}")
    for name, kind in catalog.columns.items():
        print(f"  {name}: {kind}, filled in {coverage[name]}")
    if prepared and book:
        encoder, quantizer = prepared.settings["encoder"]["name"], prepared.settings["quantizer"]["kind"]
        shape = " x ".join(map(str, book.codes))
        print(f"semantic IDs: {shape} codes by {quantizer} over {encoder}, hash {prepared.hash[:12]}")
    if live and live.edition.version:
        print(_changes_line(live))


@catalog_app.command("check")
def catalog_check(source: CatalogArgument, as_json: JsonFlag = False) -> None:
    """Verify a catalogue's files and list what will hurt the recommender, with what to do about it."""
    from gcrs.toolkit.catalog.duplicates import near_duplicates
    from gcrs.toolkit.check import check_catalog

    feeds: list[FeedReport] = []
    catalog, prepared, live = _open_live(source, feeds)
    pairs = near_duplicates(catalog)
    bare = [item.id for item in catalog if not item.facts]
    findings = check_catalog(catalog, prepared, close=pairs)
    if as_json:
        near = [{"ids": [pair.first, pair.second], "reason": pair.reason} for pair in pairs]
        answer = {"items": len(catalog), "near_duplicates": near, "without_facts": bare}
        answer |= {"health": prepared.health if prepared else None, "feed": feeds[0].to_json() if feeds else None}
        answer |= _changes_json(live) if live else {}
        _print_json({**answer, "findings": [finding.to_json() for finding in findings]})
    else:
        verified = "all parts verified" if prepared else "no semantic IDs yet"
        print(f"{len(catalog)} item{'s' * (len(catalog) != 1)}, {verified}")
        if live and live.edition.version:
            print(_changes_line(live))
        print(f"items without facts: {len(bare)}{' (' + ', '.join(bare[:5]) + ')' if bare else ''}")
        print(f"near-duplicates: {len(pairs)}")
        for pair in pairs[:MOST_PAIRS]:
            first, second = catalog[pair.first], catalog[pair.second]
            print(f"  {first.id} {first.label} | {second.id} {second.label}: {pair.reason}")
        if len(pairs) > MOST_PAIRS:
            print(f"  and {len(pairs) - MOST_PAIRS:,} more (--json lists all)")
        print(f"findings: {len(findings)}")
        for finding in findings:
            print(f"  {finding.severity}: {finding.message} {finding.hint}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(DataError.exit_code)


def _open_live(source: str, feeds: list[FeedReport]) -> tuple[Catalog, PreparedCatalog | None, LiveCatalog | None]:
    """A catalogue with a bundle's live changes in it; None where there are no semantic IDs, and where no bundle is.

    What a product feed was read as is told and put into `feeds`.
    """
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.prepared import catalog_path, open_catalog

    catalog, prepared = open_catalog(source, feeds.append)
    for line in _feed_lines(feeds):
        _say(line)
    live = LiveCatalog.at(catalog_path(source), prepared) if prepared else None
    return (live.edition.catalog if live else catalog), prepared, live


def _changes_json(live: LiveCatalog) -> dict[str, Any]:
    return {"catalog_version": live.edition.version, "added": live.added, "retired": sorted(live.edition.retired)}


def _changes_line(live: LiveCatalog) -> str:
    edition = live.edition
    return f"live changes: version {edition.version}, {live.added} added, {len(edition.retired)} retired"


@catalog_app.command("add")
def catalog_add(
    items: Annotated[Path, typer.Argument(metavar="ITEMS", help="CSV, JSON Lines or Parquet, as for build.")],
    bundle: ChangedFlag,
    as_json: JsonFlag = False,
) -> None:
    """Let items join without training: each gets a free semantic ID and can be recommended at once."""
    from gcrs.toolkit.catalog.readers import read_items
    from gcrs.toolkit.changes import add_items

    loaded, live = _live(bundle)
    fresh = read_items(items, fixed=live.edition.catalog.columns)
    with _progress() as progress:
        done = add_items(live, loaded.prepared, list(fresh), progress)
    from gcrs.toolkit.ids.codebook import spell

    seconds = {name: round(value, 3) for name, value in done.seconds.items()}
    catalog, levels = live.edition.catalog, live.edition.book.levels
    if as_json:
        told = [
            {
                "id": one.item.id,
                "title": one.item.title,
                "semantic_id": spell(one.semantic_id),
                "wanted": spell(one.wanted),
                "taken_by": one.owner,
                "moved": one.moved,
                "distance": round(one.distance, 4),
                "wanted_distance": round(one.wanted_distance, 4),
                "near": [{"id": i, "title": catalog[i].title, "shared": shared} for i, shared in one.near],
            }
            for one in done.joined
        ]
        found = {"added": told, "items": len(catalog), "catalog_version": done.version}
        _print_json(found | {"bundle": loaded.hash, "seconds": seconds})
        return
    for one in done.joined[:MOST_JOINED]:
        how = "the ID it wanted was free"
        if one.owner is not None:
            last = "code" if one.moved == 1 else f"{one.moved} codes"
            how = (
                f"{spell(one.wanted)} is {catalog[one.owner].label}'s, so its last {last} moved "
                f"(distance {one.wanted_distance:.3f} -> {one.distance:.3f})"
            )
        print(f"{one.item.id} {one.item.label}: {spell(one.semantic_id)}, {how}")
        for near, shared in one.near:
            print(f"  shares {shared} of {levels} codes: {catalog[near].label}")
    if len(done.joined) > MOST_JOINED:
        print(f"and {len(done.joined) - MOST_JOINED:,} more; --json has them all")
    print(
        f"added: {len(done.joined)} to {bundle}, now {len(catalog)} items, version {done.version} "
        f"({seconds['encode']:.1f} s encoding, {seconds['join']:.1f} s joining)"
    )


@catalog_app.command("retire")
def catalog_retire(item_ids: IdsArgument, bundle: ChangedFlag, as_json: JsonFlag = False) -> None:
    """Stop recommending items; what was said of them stays understood."""
    from gcrs.toolkit.changes import retire_items

    loaded, live = _live(bundle)
    _tell_marked("retired", loaded, live, retire_items(live, item_ids), as_json)


@catalog_app.command("restore")
def catalog_restore(item_ids: IdsArgument, bundle: ChangedFlag, as_json: JsonFlag = False) -> None:
    """Recommend retired items again."""
    from gcrs.toolkit.changes import restore_items

    loaded, live = _live(bundle)
    _tell_marked("restored", loaded, live, restore_items(live, item_ids), as_json)


def _live(bundle: str) -> tuple[Bundle, LiveCatalog]:
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle

    loaded = Bundle.load(bundle)
    return loaded, LiveCatalog.of(loaded)


def _tell_marked(what: str, bundle: Bundle, live: LiveCatalog, ids: Sequence[str], as_json: bool) -> None:
    edition = live.edition
    if as_json:
        _print_json({what: list(ids), "catalog_version": edition.version, "bundle": bundle.hash})
        return
    for item_id in ids:
        print(f"{what}: {item_id} {edition.catalog[item_id].label}")
    left = len(edition.catalog) - len(edition.retired)
    print(f"version {edition.version}: {left} of {len(edition.catalog)} items can be recommended")


def _find(catalog: Catalog, query: str) -> list[Item]:
    """The item with this id or alias, else all with this title; DataError when there is none."""
    if query in catalog:
        return [catalog[query]]
    wanted = query.casefold()
    if found := [item for item in catalog if wanted in (item.title.casefold(), item.label.casefold())]:
        return found
    labels = {item.label.casefold(): item.label for item in catalog}
    near = [labels[name] for name in difflib.get_close_matches(wanted, labels, n=3, cutoff=0.7)]
    raise DataError(
        f"No item has the id or title {query!r}.", hint=f"Close: {', '.join(near)}." if near else "Give an id or title."
    )


def _plain_value(value: Any) -> str:
    """A fact in full, as one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _item_json(
    item: Item, book: Codebook | None, facts: Mapping[str, Any] | None = None, score: float | None = None
) -> dict[str, Any]:
    """An item as `--json` shows it: our keys first, then its facts; a fact column of such a name is `fact_NAME`."""
    from gcrs.toolkit.ids.codebook import spell

    out: dict[str, Any] = {"id": item.id, "title": item.title}
    if book is not None:
        out["semantic_id"] = spell(book.semantic_id(item.id))
    if score is not None:
        out["score"] = round(score, 4)
    for name, value in (item.facts if facts is None else facts).items():
        out[f"fact_{name}" if name in ("id", "title", "semantic_id", "score", "retired") else name] = value
    return out


# ------------------------------------------------------------------------------------------- data and fine-tuning


@data_app.command("prepare")
def data_prepare(
    source: Annotated[
        Literal["redial", "inspired", "movielens"],
        typer.Argument(metavar="redial|inspired|movielens", help="The data set."),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The official zip, directory or file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Dialogues (JSON Lines), ratings (CSV) to write.")],
    catalog: Annotated[
        str | None, typer.Option(metavar="DIR|FILE", help="Catalogue whose ids to use; default: the data set's own.")
    ] = None,
    items_out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the items here.")] = None,
    facts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of facts for the items (docs/cli.md).")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Split to read; default: train.")] = None,
    annotated_targets: Annotated[
        bool, typer.Option("--annotated-targets", help="INSPIRED: annotated films are targets, named or not.")
    ] = False,
    keep_unknown: Annotated[
        bool, typer.Option("--keep-unknown", help="ReDial: films that --catalog lacks stay items, for eval to count.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Public dialogues as gcrs dialogues, public ratings as gcrs ratings; ends with a count of what was read, merged
    and dropped, and why.
    """
    from gcrs.catalogs.prepare import prepare
    from gcrs.toolkit.catalog.readers import write_items
    from gcrs.toolkit.dialogue.turns import write_dialogues
    from gcrs.toolkit.prepared import open_catalog

    if catalog and facts:
        raise UsageError("--facts is for a catalogue made here, --catalog brings its own.", hint="Leave out one.")
    own = open_catalog(catalog)[0] if catalog else None
    if source == "movielens":
        others = {
            "--facts": facts,
            "--split": split,
            "--items-out": items_out,
            "--annotated-targets": annotated_targets,
            "--keep-unknown": keep_unknown,
        }
        if odd := [flag for flag, value in others.items() if value]:
            raise UsageError(f"{odd[0]} goes with dialogues, MovieLens has ratings.", hint="Leave it out.")
        if own is None:
            raise UsageError("MovieLens' ratings need --catalog: the films that they are about.")
        from gcrs.catalogs.movielens import prepare_movielens

        with _progress() as progress:
            counts = prepare_movielens(path, own, out, progress)
        _print_prepared(
            {"out": str(out), "items_out": None, "report": counts},
            [f"{out} ({counts['ratings written']} ratings)"],
            as_json,
        )
        return
    data = prepare(
        source, path, catalog=own, facts=facts, split=split, annotated=annotated_targets, keep_unknown=keep_unknown
    )
    write_dialogues(data.dialogues, out)
    if items_out:
        write_items(data.items, items_out)
    written = [
        f"{out} ({len(data.dialogues)} dialogues)",
        *([f"{items_out} ({len(data.items)} items)"] if items_out else []),
    ]
    kept = None if items_out is None else str(items_out)
    _print_prepared({"out": str(out), "items_out": kept, "report": data.report}, written, as_json)


def _print_prepared(done: Mapping[str, Any], written: Sequence[str], as_json: bool) -> None:
    if as_json:
        _print_json(done)
        return
    for line in _report_lines(done["report"]):
        print(line)
    for what in written:
        print(f"written: {what}")


def _report_lines(report: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in report.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _report_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {value}"


def _settings(config: str | None, assignments: list[str] | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Fine-tuning settings: the recipe's, then --set, then flags; a budget replaces an earlier one."""
    from gcrs.toolkit.settings import parse_assignments

    values: dict[str, Any] = {}
    budgets = {"steps", "max_minutes", "tokens"}
    if config:
        from gcrs.toolkit.model.recipes import read_recipe

        values = read_recipe(config)
    flagged = {name: value for name, value in flags.items() if value is not None}
    for given in (parse_assignments(assignments or []), flagged):
        if budgets.intersection(given):
            values = {name: value for name, value in values.items() if name not in budgets}
        values |= given
    return values


@app.command()
def finetune(
    catalog: Annotated[Path | None, typer.Option(metavar="DIR", help="Of `gcrs catalog build`, or a bundle.")] = None,
    dialogues: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Dialogues; repeatable.")] = None,
    valid: Annotated[Path | None, typer.Option(metavar="FILE", help="Dialogues for validation.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Bundle to write.")] = None,
    warm_start: Annotated[
        str | None,
        typer.Option("--from", metavar="BUNDLE", help="Start from this; movies if few dialogues; or none."),
    ] = None,
    noun: Annotated[str | None, typer.Option(metavar="WORDS", help="What one item is called: 'board game'.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Pinned name, directory, GGUF or hub id.")] = None,
    config: ConfigFlag = None,
    mixture: MixtureFlag = None,
    ratings: RatingsFlag = None,
    chat: TalkFlag = None,
    method: MethodFlag = None,
    steps: StepsFlag = None,
    max_minutes: MinutesFlag = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to train.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    settings: SettingsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Teach a model a catalogue, and dialogues if there are any."""
    from gcrs.programs.render import clean
    from gcrs.toolkit.model.finetune import finetune as run
    from gcrs.toolkit.model.finetune_config import FinetuneConfig

    flags = {
        "catalog": catalog, "dialogues": dialogues or None, "valid": valid, "out": out, "base": base, "method": method,
        "steps": steps, "max_minutes": max_minutes, "device": device, "seed": seed,
        "warm_start": warm_start, "noun": noun, "mixture": mixture, "ratings": ratings or None, "chat": chat or None,
    }  # fmt: skip
    values = _settings(config, settings, flags)
    for name in ("catalog", "out"):
        if not values.get(name):
            raise UsageError(f"--{name} is missing.", hint="Pass it, or name it in --config. See: gcrs finetune --help")
    chosen = FinetuneConfig.from_mapping(values)
    with _progress() as progress:
        report = run(chosen, resume=resume, progress=progress, warn=lambda text: _say(clean(text)))
    if not report.get("main", True):  # another process of the same run says it
        return
    if as_json:
        _print_json(report)
    else:
        for line in _report_lines({k: v for k, v in report.items() if not isinstance(v, list)}):
            print(line)
    if not report["finished"]:
        raise Interrupted(f"Stopped at step {report['steps']}: {report['resume']}.")


@app.command()
def tune(
    catalog: Annotated[Path, typer.Option(metavar="DIR", help="Directory of `gcrs catalog build`, or a bundle.")],
    dialogues: Annotated[list[Path], typer.Option(metavar="FILE", help="Training dialogues; repeatable.")],
    valid: Annotated[Path, typer.Option(metavar="FILE", help="Dialogues that judge the proxy runs.")],
    out: Annotated[Path, typer.Option("--out", metavar="YAML", help="Mixture file to write; reports go beside it.")],
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Proxy runs in all, over all sessions.")] = 12,
    max_minutes: Annotated[float | None, typer.Option(metavar="M", help="Minutes of this session's search.")] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Tasks to share the tokens out to (docs/mixture.md).")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(metavar="M=W,…", help="What counts, such as 'recall@10=1,bits_per_byte=-0.1'.")
    ] = None,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a proxy run.")] = 20_000,
    start_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tokens of the shared warm start; twice a proxy run's.")
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="Start all runs from this instead of a warm start.")
    ] = None,
    study: Annotated[Path | None, typer.Option(metavar="DIR", help="What survives a kill; default OUT.study.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Optuna's storage, for runs side by side; default SQLite.")
    ] = None,
    sampler: Annotated[
        Literal["surface", "tpe", "random"], typer.Option(help="What proposes the next shares.")
    ] = "surface",
    halving: Annotated[bool, typer.Option(help="Stop the worse half of the later runs after a third.")] = True,
    max_repeats: Annotated[float, typer.Option(metavar="N", help="How often an example may be seen.")] = 4.0,
    final: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also fine-tune at the chosen shares: the bundle to write.")
    ] = None,
    final_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tokens of that run, and `tokens` of the mixture file.")
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="No search: compare OUT with the paper's point and uniform shares.")
    ] = False,
    prove_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Tokens of a run of the proof.")] = None,
    prove_replies: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Replies ranked after it; default: eval_limit.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Seeds of the proof.")] = 3,
    ranked: Annotated[int, typer.Option(metavar="N", min=0, help="Trials run again at the proof's tokens.")] = 3,
    ratings: RatingsFlag = None,
    chat: TalkFlag = None,
    noun: Annotated[str | None, typer.Option(metavar="WORDS", help="What one item is called: 'board game'.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Pinned name, directory, GGUF or hub id.")] = None,
    config: ConfigFlag = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to train.")] = None,
    seed: SeedFlag = 0,
    settings: SettingsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Search the shares of the training data with short runs."""
    from gcrs.programs.objective import DEFAULT, Objective

    wanted = Objective.parse(objective or DEFAULT)
    flags = {
        "catalog": catalog, "dialogues": dialogues, "valid": valid, "out": final or out.with_suffix(".bundle"),
        "base": base, "device": device, "noun": noun, "ratings": ratings or None, "chat": chat or None, "seed": seed,
    }  # fmt: skip
    values = _settings(config, settings, flags)
    for name in ("steps", "max_minutes", "tokens", "warm_start"):
        values.pop(name, None)  # a recipe's: the runs of a search have their own
    if values.pop("mixture", None) is not None:
        raise UsageError("A search makes a mixture and takes none.", hint="Leave `mixture` out of the settings.")
    from gcrs.programs.mixture_search import TuneConfig
    from gcrs.toolkit.model.finetune_config import FinetuneConfig

    named = tuple(name.strip() for name in tasks.split(",") if name.strip()) if tasks else ()
    chosen = TuneConfig(
        FinetuneConfig.from_mapping(values), trials, study or out.with_suffix(".study"), max_minutes, wanted, named,
        tokens, start_tokens, warm_start, storage, sampler, halving, max_repeats, seed,
    )  # fmt: skip
    with _progress() as progress:
        if prove:
            size = {"tokens": prove_tokens or final_tokens or 4 * tokens, "replies": prove_replies}
            report = _prove_mixture(chosen, out, size | {"seeds": seeds, "ranked": ranked}, progress)
        else:
            report = _tune(chosen, out, final, final_tokens, progress)
    from gcrs.programs.mixture_text import proof_lines, search_lines

    if as_json:
        _print_json(report)
        return
    for line in proof_lines(report) if prove else search_lines(report):
        print(line)


def _tune(
    config: TuneConfig, out: Path, final: Path | None, final_tokens: int | None, progress: Progress
) -> dict[str, Any]:
    from gcrs.programs.mixture_final import final_bundle
    from gcrs.programs.mixture_report import write_report
    from gcrs.programs.mixture_search import search

    found = search(config, progress=progress)
    report = write_report(found, out, final_tokens)
    if final is not None:
        final_bundle(found, out, final_tokens or 4 * config.tokens, final, progress)
        report["final"] = str(final)
    return report


def _prove_mixture(config: TuneConfig, out: Path, size: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from gcrs.programs.mixture_proof import prove_mixture
    from gcrs.programs.mixture_search import open_search
    from gcrs.toolkit.dialogue.mixture import Mixture

    mixture = Mixture.load(out)
    found = open_search(config, progress=progress)
    place = out.with_suffix(".proof.json")
    report = prove_mixture(found, mixture, out=place, **size)
    return report | {"out": str(place)}


@app.command("export")
def export_model(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write.")],
    bundle: BundleFlag = "movies",
    dtype: Annotated[Literal["bf16", "fp32"], typer.Option(help="Number format of the weights.")] = "bf16",
    as_json: JsonFlag = False,
) -> None:
    """Write bundle and base as one Hugging Face directory."""
    from gcrs.toolkit.model.bundle import Bundle

    loaded = Bundle.load(bundle)
    from gcrs.toolkit.model.device import pick_dtype
    from gcrs.toolkit.model.export import export

    with _progress() as progress:
        report = export(loaded, out, pick_dtype("cpu", dtype), progress=progress)
    if as_json:
        _print_json(report)
        return
    print(f"written: {out} ({report['parameters']:,} parameters, {report['dtype']}, {report['bytes'] / 1e6:.0f} MB)")


@app.command()
def push(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's directory or name.")],
    remote: RemoteArgument,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An evaluation's JSON for the pushed copy and its card."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository of the hub private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="R", help="Branch of the hub's repository.")] = None,
    message: Annotated[str | None, typer.Option(metavar="M", help="Message of the commit on the hub.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Share a bundle: to a directory, or to the Hugging Face hub."""
    from gcrs.toolkit.hub.transfer import push as run

    with _progress() as progress:
        options = {"scores": scores, "private": private, "revision": revision, "message": message}
        report = run(bundle, remote, **options, progress=progress)  # type: ignore[arg-type]
    if Path(report["base"]).is_absolute():
        _say(f"Its base model is {report['base']}: it runs only where the same weights lie at that place.")
    if as_json:
        _print_json(report)
    elif report["changed"]:
        print(f"pushed: {report['remote']} ({report['files']} files, {report['bytes'] / 1e6:.1f} MB, {_short(report)})")
    else:
        print(f"nothing to do: {report['remote']} holds these bytes already ({_short(report)})")


@app.command()
def pull(
    remote: RemoteArgument,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name here; default: the remote's own.")] = None,
    revision: Annotated[str | None, typer.Option(metavar="R", help="Branch, tag or commit of the hub.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory to write instead of the cache.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a bundle that was pushed; then --bundle finds it by name."""
    from gcrs.toolkit.hub.transfer import pull as run

    with _progress() as progress:
        report = run(remote, name=name, out=out, revision=revision, progress=progress)
    if as_json:
        _print_json(report)
        return
    done = "pulled" if report["changed"] else "nothing to do, already here"
    print(f"{done}: {report['remote']} ({report['items']} items, {_short(report)})")
    print(f"use it: gcrs chat --bundle {report['name'] or out}")


def _short(report: Mapping[str, Any]) -> str:
    return f"hash {report['bundle'][:12]}"


# ------------------------------------------------------------------------------------------------ talking to people


def _load(
    bundle: str, rules: Mapping[str, Any], device: str, chroma_url: str | None, engine: str, api_base: str | None
) -> Talker:
    if (engine == "vllm") != (api_base is not None):
        raise UsageError("--engine vllm and --api-base go together.", hint="Pass both, or neither.")
    from gcrs.programs.loading import load_talker

    remote: dict[str, Any] = {"api_base": api_base, "api_key": os.environ.get("GCRS_API_KEY")}
    with _progress() as progress:
        talker = load_talker(
            bundle, **rules, **remote, device=device, chroma_url=chroma_url, progress=progress, started=STARTED
        )
    if talker.unlisted:
        named = ", ".join(talker.unlisted[:5]) + (", …" if len(talker.unlisted) > 5 else "")
        total = len(rules["allow"].ids)
        _say(f"{len(talker.unlisted):,} of the {total:,} allowed ids are not in the catalogue: {named}")
    return talker


def _rules(where: list[str] | None, exclude: list[str] | None, allow: Path | None, or_unknown: bool) -> dict[str, Any]:
    """The four rule flags as the parts take them; the file is read here."""
    from gcrs.toolkit.catalog.allow_list import read_allow_list

    listed = None if allow is None else read_allow_list(allow)
    return {"where": tuple(where or ()), "exclude": tuple(exclude or ()), "allow": listed, "or_unknown": or_unknown}


@app.command()
def chat(
    bundle: BundleFlag = "movies",
    where: WhereFlag = None,
    exclude: ExcludeFlag = None,
    allow: AllowFlag = None,
    or_unknown: OrUnknownFlag = False,
    show_decisions: Annotated[bool, typer.Option("--show-decisions", help="Intent, targets and times.")] = False,
    session: Annotated[Path | None, typer.Option(metavar="FILE", help="Go on with this session, and keep it.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the replies; default: a new one.")] = None,
    device: DeviceFlag = "cpu",
    chroma_url: ChromaFlag = None,
    engine: EngineFlag = "local",
    api_base: ApiBaseFlag = None,
) -> None:
    """Talk with the recommender; reads lines from a pipe as well."""
    rules = _rules(where, exclude, allow, or_unknown)
    talker = _load(bundle, rules, device, chroma_url, engine, api_base)
    from gcrs.programs.chat import piped_lines, run_chat, terminal_lines
    from gcrs.programs.session import ChatSession

    held = ChatSession(
        talker.recommender,
        talker.linker,
        bundle_hash=talker.bundle.hash,
        **rules,
        seed=secrets.randbits(31) if seed is None else seed,
        newest=talker.follow,
    )
    if session is not None and session.exists():
        saved = held.load(session, **{**rules, "where": where or None}, seed=seed)
        if where and list(saved.where) != where:
            _say(f"The session's rules were {', '.join(saved.where) or 'none'}; from now on: {', '.join(where)}.")
        if allow is not None and saved.allow not in (None, held.rules.allow and held.rules.allow.path):
            _say(f"The session's allowed ids were those in {saved.allow}; from now on: {allow}.")
        if seed is not None and seed != saved.seed:
            _say(f"The session's seed was {saved.seed}; from now on: {seed}.")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    code = run_chat(
        held,
        _console(),
        terminal_lines() if interactive else piped_lines(),
        interactive=interactive,
        notes=_console(stderr=True),
        show_decisions=show_decisions,
        session_file=session,
        facts=talker.facts.get,
    )
    if code:
        raise typer.Exit(code)


@app.command()
def recommend(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What the person says.")] = None,
    dialogue: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="The first dialogue of a JSON Lines file, or of stdin.")
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many items.")] = 10,
    bundle: BundleFlag = "movies",
    where: WhereFlag = None,
    exclude: ExcludeFlag = None,
    allow: AllowFlag = None,
    or_unknown: OrUnknownFlag = False,
    intent: Annotated[Literal["free", "recommend", "chat"], typer.Option(help="Whether to recommend.")] = "recommend",
    seed: SeedFlag = 0,
    device: DeviceFlag = "cpu",
    chroma_url: ChromaFlag = None,
    engine: EngineFlag = "local",
    api_base: ApiBaseFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """The k best items and a reply for one message or dialogue."""
    if (text is None) == (dialogue is None):
        raise UsageError("Say what to answer, once.", hint="Pass either TEXT or --dialogue FILE.")
    from gcrs.toolkit.dialogue.turns import check_message

    if text is not None:
        check_message(text)
    given = None if dialogue is None else _read_dialogue(dialogue)
    rules = _rules(where, exclude, allow, or_unknown)
    talker = _load(bundle, rules, device, chroma_url, engine, api_base)
    from gcrs.programs.loading import Clock
    from gcrs.programs.one_reply import Request, reply_to_dialogue, reply_to_text
    from gcrs.programs.render import clean, fact_text, shown_text

    clock = Clock()
    request = Request(k=k, intent=intent, seed=seed, **rules)
    if given is None:
        reply = reply_to_text(talker.recommender, talker.linker, talker.bundle.hash, text or "", request)
    else:
        reply, outside = reply_to_dialogue(talker.recommender, talker.linker, given, request)
        if outside:
            _say(f"Ids that are not in the catalogue, read as the word 'it': {clean(', '.join(outside[:5]))}")
    clock.lap("reply")
    facts = talker.facts.get([scored.item_id for scored in reply.ranking])
    talker.facts.close()
    clock.lap("facts")
    edition = talker.live.edition
    catalog, book = edition.catalog, edition.book
    words = shown_text(reply.text, catalog)
    if as_json:
        steps = {name: value for name, value in reply.seconds.items() if name != "total"}
        link = clock.seconds["reply"] - sum(steps.values())
        total = time.perf_counter() - STARTED
        seconds = talker.seconds | {"link": link} | steps | {"facts": clock.seconds["facts"], "total": total}
        _print_json(
            {
                "intent": reply.intent.intent,
                "reply": words,
                "items": [_item_json(catalog[s.item_id], book, facts[s.item_id], s.score) for s in reply.ranking],
                "bundle": talker.bundle.hash,
                "catalog_version": edition.version,
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
            }
        )
        return
    print(words)
    for number, scored in enumerate(reply.ranking, 1):
        told = "; ".join(f"{name}: {fact_text(value)}" for name, value in facts[scored.item_id].items())
        print(f"{number:>3}. {clean(catalog[scored.item_id].title, lines=False)}{f' | {told}' if told else ''}")


@app.command()
def serve(
    http: Annotated[bool, typer.Option("--http", help="REST, chat page, OpenAI-compatible, MCP at /mcp.")] = False,
    mcp: Annotated[bool, typer.Option("--mcp", help="MCP over standard input and output.")] = False,
    bundle: BundleFlag = "movies",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Beyond this machine a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0: any free one.")] = 8642,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", envvar="GCRS_TOKEN", help="What every request must carry.")
    ] = None,
    where: WhereFlag = None,
    exclude: ExcludeFlag = None,
    allow: AllowFlag = None,
    or_unknown: OrUnknownFlag = False,
    max_body: Annotated[int, typer.Option(metavar="BYTES", help="Largest request.")] = 1_000_000,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For an answer, its wait included.")] = 120.0,
    running: Annotated[int, typer.Option(metavar="N", help="Requests at work at once.")] = 4,
    waiting: Annotated[int, typer.Option(metavar="N", help="Requests that may wait.")] = 64,
    sessions: Annotated[int, typer.Option(metavar="N", help="Sessions in memory.")] = 1000,
    session_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Save sessions here.")] = None,
    device: DeviceFlag = "cpu",
    chroma_url: ChromaFlag = None,
    engine: EngineFlag = "local",
    api_base: ApiBaseFlag = None,
) -> None:
    """Serve the recommender to programs, agents and browsers."""
    if http == mcp:
        hint = "--http serves MCP as well, at /mcp." if http else "Pass --http or --mcp."
        raise UsageError("Say how to serve: either --http or --mcp.", hint=hint)
    if mcp and (host != "127.0.0.1" or port != 8642 or session_dir is not None):  # a token may stand in the environment
        raise UsageError(
            "--host, --port and --session-dir are for --http: --mcp speaks over standard input and output.",
            hint="--http serves MCP as well, at /mcp.",
        )
    from gcrs.programs.serving.config import ServeConfig
    from gcrs.programs.serving.run import listen, require, serve_http, serve_mcp

    require()
    limits = {"max_body": max_body, "timeout": timeout, "running": running, "waiting": waiting, "sessions": sessions}
    where_to = {"host": host, "port": port, "token": token or None, "session_dir": session_dir} if http else {}
    config = ServeConfig(**where_to, **limits)  # type: ignore[arg-type]
    sock = listen(config) if http else None
    rules = _rules(where, exclude, allow, or_unknown)
    talker = _load(bundle, rules, device, chroma_url, engine, api_base)
    from gcrs.programs.rules import Rules
    from gcrs.programs.serving.tools import Toolbox

    toolbox = Toolbox(talker, Rules(**rules))
    if sock is None:
        code = serve_mcp(toolbox, config)
    else:
        code = serve_http(toolbox, config, sock, lambda address: _say(f"serving {bundle} on {address} (Ctrl-C stops)"))
    if code:
        raise typer.Exit(code)


def _read_dialogue(source: str) -> Dialogue:
    """The first dialogue of a file, or of stdin for `-`."""
    from gcrs.toolkit.dialogue.turns import parse_dialogue, read_dialogues

    if source != "-":
        return next(read_dialogues(Path(source)))
    line = next((line for line in sys.stdin if line.strip()), "")
    if not line:
        raise DataError("Standard input has no dialogue.", hint='Expected one JSON object: {"turns": […]}')
    try:
        return parse_dialogue(json.loads(line), "standard input, line 1")
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"Standard input is not valid JSON: {error}.", hint="Expected one dialogue on one line."
        ) from error


@app.command("batch")
def batch_verb(
    dialogues: Annotated[Path, typer.Argument(metavar="FILE", help="Dialogues, one JSON object a line.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON Lines to write, an answer a dialogue.")],
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many items each.")] = 10,
    bundle: BundleFlag = "movies",
    where: WhereFlag = None,
    exclude: ExcludeFlag = None,
    allow: AllowFlag = None,
    or_unknown: OrUnknownFlag = False,
    intent: Annotated[Literal["free", "recommend", "chat"], typer.Option(help="Whether to recommend.")] = "recommend",
    items_only: Annotated[bool, typer.Option("--items-only", help="No words: several times as fast.")] = False,
    part: Annotated[int, typer.Option("--part", metavar="N", min=1, help="Rows kept at a time.")] = 50,
    workers: WorkersFlag = 0,
    ray_address: RayFlag = None,
    gpus: GpusFlag = 0.0,
    seed: SeedFlag = 0,
    device: DeviceFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Answer a file of dialogues, by many workers, over kills.

    The same command goes on where a killed one was (docs/scale.md).
    """
    from gcrs.programs.batch import BatchConfig, answer_all
    from gcrs.programs.one_reply import Request

    request = Request(k=k, intent=intent, seed=seed, **_rules(where, exclude, allow, or_unknown))
    config = BatchConfig(dialogues, out, bundle, request, not items_only, part, device)
    with _progress() as progress:
        report = answer_all(config, ray=_ray(workers, ray_address, gpus, device), progress=progress)
    if as_json:
        _print_json(report)
        return
    kept = f", {report['kept']:,} of them by an earlier run" if report["kept"] else ""
    print(f"answered: {report['rows']:,} dialogues{kept}; without an answer: {report['failed']:,}")
    print(f"written: {report['out']}")


@app.command("prove")
def prove_verb(
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Semantic IDs to decode.")],
    bundle: Annotated[
        str | None,
        typer.Option("--bundle", metavar="DIR|NAME", help="Decode with this bundle; default: random models."),
    ] = None,
    seed: SeedFlag = 0,
    device: DeviceFlag = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Decode at random; fails unless every item is an allowed one."""
    engine = columns = None
    with _progress() as progress:
        if bundle is not None:
            from gcrs.toolkit.catalog.filters import Columns
            from gcrs.toolkit.model.bundle import Bundle, load_engine

            loaded = Bundle.load(bundle)
            engine, columns = load_engine(loaded, device=device, progress=progress), Columns(loaded.catalog)
        from gcrs.toolkit.eval.prove import prove

        proof = prove(steps, seed=seed, engine=engine, columns=columns, progress=progress)
    if as_json:
        _print_json(proof.as_json() | {"holds": proof.holds, "seed": seed, "bundle": bundle})
    else:
        print(f"tried: {proof.tried:,} IDs in {proof.lists:,} lists and {proof.replies:,} replies")
        over = (
            f"the bundle {bundle}"
            if bundle
            else f"{proof.catalogues:,} random catalogue{'s' if proof.catalogues != 1 else ''}"
        )
        print(f"over: {over}, seed {seed}, {proof.seconds:.0f} s")
        for name in ("invalid", "duplicates", "short", "leaked"):
            print(f"{name}: {getattr(proof, name)}")
    if not proof.holds:
        raise GcrsError(f"The decoding is not exact: {proof.failure}.", hint=f"Again: gcrs prove --seed {seed}")


@app.command("eval")
def eval_verb(
    dialogues: Annotated[Path, typer.Option(metavar="FILE", help="Dialogues that the bundle was not trained on.")],
    bundle: BundleFlag = "movies",
    protocol: Annotated[
        Literal["all", "new", "cold"], typer.Option(help="Of the table; --json has all three.")
    ] = "all",
    mode: Annotated[
        Literal["forced", "free"], typer.Option(help="Open replies as recommendations, or not.")
    ] = "forced",
    baselines: Annotated[
        str, typer.Option(metavar="all|none|NAME,…", help="Rows beside the model (docs/evaluation.md).")
    ] = "popularity,copier",
    train: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Training dialogues that rows are counted on; repeatable.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run's report directory: differences on the same cases.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.json, cases.jsonl, page.html.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when something that is promised does not hold.")
    ] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="First N dialogues only.")] = None,
    replies: Annotated[int, typer.Option(metavar="N", help="Replies that are written and measured.")] = 200,
    seeds: Annotated[int, typer.Option(metavar="N", help="How often they are written, each with the next seed.")] = 1,
    sampled: Annotated[int, typer.Option(metavar="N", help="Replies that the slow baselines rank.")] = 200,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out gold items outside the catalogue; default: misses.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Evaluate dialogues that were trained on.")] = False,
    zero_shot_lm: Annotated[
        str | None, typer.Option(metavar="NAME", help="A DSPy model's name: the same program without training.")
    ] = None,
    api_base: Annotated[str | None, typer.Option(metavar="URL", help="Where that model answers.")] = None,
    beams: Annotated[int, typer.Option(metavar="N", help="Least width of the target's beams.")] = 60,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes; default: one a core, at most 8.")] = None,
    seed: SeedFlag = 0,
    device: DeviceFlag = "cpu",
    dtype: Annotated[Literal["auto", "bf16", "fp32"], typer.Option(help="Number format of the model.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Score a bundle on dialogues, beside baselines and another run."""
    from gcrs.toolkit.eval.config import EvalConfig, baseline_names
    from gcrs.toolkit.eval.report import check_place, write_report

    if report is not None:
        check_place(report)
    names, left_out = baseline_names(baselines, has_training=bool(train))
    for line in left_out:
        _say(line)
    config = EvalConfig(
        bundle, dialogues, protocol, mode, names, tuple(train or ()), limit, replies, seeds, sampled, seed, beams,
        skip_unknown, force, zero_shot_lm, api_base, workers, device, dtype,
    )  # fmt: skip
    from gcrs.programs.evaluate import evaluate
    from gcrs.toolkit.eval.page import page
    from gcrs.toolkit.eval.text_report import lines_of

    with _progress() as progress:
        found = evaluate(config, progress, compare=compare)
    unwritten: GcrsError | None = None
    if report is not None:
        try:
            write_report(report, found.report, found.lines, page(found.report, found.examples, found.missed))
        except GcrsError as error:  # what was scored is shown, whatever the disk says
            unwritten = error
    for line in found.left_out:
        _say(line)
    if as_json:
        _print_json(found.report)
    else:
        for line in lines_of(found.report):
            print(line)
    if unwritten:
        raise unwritten
    _say(f"{time.perf_counter() - STARTED:.0f} s" + (f"; written: {report}" if report else ""))
    if strict and found.broken:
        raise GcrsError(f"A promise is broken: {'; '.join(found.broken)}.", hint="See docs/evaluation.md, --strict.")


@app.command()
def bench(
    bundle: BundleFlag = "movies",
    rows: Annotated[
        list[str] | None, typer.Option("--rows", metavar="NAME", help="Only this row, or turn, tree, …; repeatable.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller sizes, fewer repeats; targets are not judged.")
    ] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads; default: torch's.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What gcrs costs, each row beside a named baseline."""
    from gcrs.toolkit.bench.rows import chosen, run

    began = time.perf_counter()
    names = [name.strip() for part in rows or [] for name in part.split(",") if name.strip()]
    chosen(names)
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}, expected 1 or more.")
    from gcrs.toolkit.model.bundle import Bundle

    loaded = Bundle.load(bundle)
    from gcrs.programs.bench_turn import three_steps  # before torch: it settles DSPy's environment
    from gcrs.toolkit.bench.workbench import Workbench

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    workbench = Workbench(loaded, quick, three_steps)
    found = []
    with _progress() as progress:
        for row in run(workbench, names, progress):
            found.append(row.as_json())
            if not as_json:
                print(_bench_line(found[-1]), flush=True)
    if as_json:
        seconds = round(time.perf_counter() - began, 1)
        head = {"machine": workbench.machine, "bundle": loaded.hash, "quick": quick, "seconds": seconds}
        _print_json(head | {"rows": found})


def _bench_line(row: Mapping[str, Any]) -> str:
    """A row of `gcrs bench`: value, spread, target, and how far from what the machine could do."""
    if row["skipped"]:
        return f"{row['name']:<14} {row['skipped']}"
    value = row["value"]
    unit = "x" if row["unit"] == "ratio" else row["unit"]
    spread = f" [{value['lo']:g}, {value['hi']:g}]" if value["n"] > 1 else ""
    told = [f"{row['name']:<14} {value['median']:g} {unit}{spread}, n = {value['n']}: {row['what']}"]
    if row["baseline"]:
        told.append(f"against {row['baseline']}")
    if row["target"] is not None:
        sign = "<=" if row["better"] == "lower" else ">="
        verdict = {True: "met", False: "MISSED", None: "not judged"}[row["met"]]
        told.append(f"target {sign} {row['target']:g}: {verdict}")
    if row["limit"] and row["limit"]["times"]:
        told.append(f"{row['limit']['times']:.1f} times the limit by {row['limit']['bound']}")
    return "; ".join(told)


@app.command()
def doctor(
    bundle: BundleFlag = "movies",
    config: ConfigFlag = None,
    catalog: Annotated[Path | None, typer.Option(metavar="DIR", help="Forecast with this catalogue.")] = None,
    dialogues: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="And these; repeatable.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Forecast for this base.")] = None,
    method: MethodFlag = None,
    steps: StepsFlag = None,
    max_minutes: MinutesFlag = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Forecast for this device.")] = None,
    settings: SettingsFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Look after this machine; forecast a fine-tuning run."""
    from gcrs.toolkit.doctor import examine, forecast

    flags = {
        "catalog": catalog, "dialogues": dialogues or None, "base": base, "method": method, "steps": steps,
        "max_minutes": max_minutes, "device": device,
    }  # fmt: skip
    values = _settings(config, settings, flags)
    checks = list(examine(bundle))
    with _progress() as progress:
        told, numbers = forecast(values, progress)
    checks += told
    failed = [check for check in checks if check.exit_code]
    if as_json:
        found = [{"name": check.name, "found": check.found, "exit_code": check.exit_code} for check in checks]
        _print_json({"ok": not failed, "checks": found, "forecast": numbers})
    else:
        for check in checks:
            print(f"{'ok  ' if not check.exit_code else 'FAIL'} {check.name}: {check.found}")
    if failed:
        raise typer.Exit(max(check.exit_code for check in failed))
