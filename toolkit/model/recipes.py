"""Recipes: fine-tuning settings as YAML, in a file of the user's or by the name of one that came with gcrs.

Knows nothing of how a run is carried out.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.model.finetune_config import RANGES, FinetuneConfig
from gcrs.toolkit.settings import read_settings
from gcrs.toolkit.typed_settings import typed


def shipped_recipes() -> dict[str, Path]:
    """The recipes that came with gcrs, by name."""
    import gcrs

    folder = Path(gcrs.__file__).resolve().parent / "catalogs" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(source: str | Path) -> dict[str, Any]:
    """The settings of a YAML file or of a recipe by name, checked one by one.

    What is neither a file nor a known name is a UsageError (exit 2) when it looks like a name and a DataError (exit 3)
    when it looks like a path; so is a file with an unknown setting or a value of the wrong kind, which is named.
    """
    path, known = Path(source), shipped_recipes()
    if not path.is_file() and str(source) in known:
        path = known[str(source)]
    elif not path.exists() and path.name == str(source) and not path.suffix:
        near = difflib.get_close_matches(str(source), known, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"No recipe is called {str(source)!r} and there is no such file.",
            hint=f"{hint}Recipes that came with gcrs: {', '.join(known)}.",
        )
    return typed(FinetuneConfig, read_settings(path), RANGES, where=str(source), error=DataError)
