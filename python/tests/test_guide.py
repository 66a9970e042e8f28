"""The Python blocks of the guide and of the README are run, one after the other, as their reader would type them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import thalweg as tw

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "python" / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not page.exists():
        pytest.skip(f"{page} is not with the package")
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks, "no block"
    names: dict[str, object] = {}
    for block in blocks:
        # Lines are those of the page.
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


def test_the_notebook_runs() -> None:
    notebook = json.loads((ROOT / "python" / "examples" / "digits.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "it is kept without what it printed"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    model = names["model"]
    assert isinstance(model, tw.Model) and model.evaluate(tw.data.digits()[1])["accuracy"] > 0.95
    # As Jupyter asks for it.
    shown = model.graph._repr_mimebundle_()
    assert "flowchart" in shown["text/vnd.mermaid"]
    frame = shown["text/html"]
    assert (
        frame.startswith('<iframe sandbox="allow-scripts"')
        and "&lt;!doctype html&gt;" in frame
        and frame.count('"') == 6
    )
    assert "<td" in model._repr_html_() and "body.conv1.weight" in model._repr_html_()
