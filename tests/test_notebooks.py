"""The notebooks of docs/notebooks, one for each kind of user: run from top to bottom by a real kernel."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
SAID = {
    "catalogue_owner": ["300 items", "minutes, "],
    "researcher": ["recall@10", "popularity", "p = 1.0000"],
    "agent_builder": ["recommend [", "invalid_argument", "Two films for tonight."],
}


@pytest.mark.real
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SAID)
def test_a_notebook_runs_to_its_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "catalogue_owner" and not os.environ.get("GCRS_ALL_NOTEBOOKS"):
        pytest.skip(
            "set GCRS_ALL_NOTEBOOKS=1 to run this notebook too: its calls are run by test_docs and test_eval_cli"
        )
    gcrs = tmp_path / "gcrs"
    gcrs.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from gcrs.cli import run; run()' \"$@\"\n")
    gcrs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = "\n".join(
        str(output.get("text", "")) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert all(said in shown for said in SAID[name]), shown[-2000:]
    assert "Traceback" not in shown and "gcrs: error" not in shown, shown[-2000:]


def test_each_notebook_is_told_of_and_was_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SAID)
    for path in FOLDER.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), "outputs are pasted in"
