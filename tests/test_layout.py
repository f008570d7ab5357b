"""The project's shape: what may import what, what a module says of itself, what the package is made of."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("toolkit", "programs", "catalogs")
MODULES = sorted([ROOT / "cli.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))])
HEAVY = {"torch", "transformers", "peft", "chromadb", "pyarrow", "matplotlib", "litellm", "huggingface_hub"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_and_keeps_to_its_place(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert (ast.get_docstring(tree) or "").strip(), "every module opens with what it does and does not know"
    home = path.relative_to(ROOT).parts[0]
    forbidden = {
        "toolkit": ("gcrs.programs", "gcrs.cli", "gcrs.catalogs"),
        "programs": ("gcrs.cli", "gcrs.catalogs"),
        "catalogs": ("gcrs.cli", "gcrs.programs"),
        "cli.py": (),
    }[home]
    bare = (*PACKAGES, "cli")
    for module in imports(tree):
        assert not module.startswith(forbidden), f"{name_of(path)} imports {module}: against the arrows"
        assert module.split(".")[0] not in bare, f"{name_of(path)} imports {module}: say gcrs.{module}"
    if home != "cli.py":
        prints = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
        assert not prints, f"{name_of(path)} prints: only cli.py does"


def test_the_value_modules_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import gcrs.toolkit.errors, gcrs.toolkit.files, gcrs.toolkit.catalog.item, gcrs.toolkit.dialogue.turns\n"
        "import gcrs.toolkit.ids.codebook, gcrs.toolkit.catalog.readers, gcrs.toolkit.prepared\n"
        f"sys.exit(str({HEAVY!r} & set(sys.modules)) if {HEAVY!r} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_the_bare_name_is_refused(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and f"import gcrs.{package}, not {package}" in done.stderr


def test_the_links_are_relative_and_complete() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / "lib" / "gcrs").iterdir() if path.is_symlink()}
    assert links == {name: f"../../{name}" for name in (*PACKAGES, "cli.py")}


def test_versions_agree() -> None:
    import gcrs

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == gcrs.__version__
    assert f"## {gcrs.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_and_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(one for extra in extras for one in extra if not one.startswith("gcrs["))]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[]", one)[0]).lower() for one in wanted}
    assert names <= pinned
    block = text.split("dependencies = [")[1].split("]")[0]
    assert all("#" in line for line in block.strip().splitlines())


def test_root_holds_what_a_reader_expects() -> None:
    files = ("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "pyproject.toml", "constraints.txt", ".ci/run")
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_documented_settings_are_the_real_ones() -> None:
    from dataclasses import fields

    from gcrs.toolkit.model.finetune_config import FinetuneConfig

    documented = re.findall(r"^\| `(\w+)` \| ", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [field.name for field in fields(FinetuneConfig)]
    assert [name for name in documented if name in names] == names
