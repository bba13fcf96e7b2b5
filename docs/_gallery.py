"""mkdocs hook: publishes the rendered result pages and lists them on the gallery page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

RESULTS = Path(__file__).resolve().parent.parent / "results"
MARKER = "<!-- pages -->"


def records() -> Iterator[tuple[str, dict[str, Any]]]:
    """(path without suffix below results/, facts of the experiment) of every committed record."""
    for path in sorted(RESULTS.glob("*/*.json")):
        record = json.loads(path.read_text("utf-8"))
        if "schema_version" in record:
            yield path.relative_to(RESULTS).with_suffix("").as_posix(), record["experiment"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add results/NAME.html as pages/NAME.html."""
    for name, _ in records():
        page = RESULTS / f"{name}.html"
        if not page.is_file():
            raise PluginError(f"results/{name}.html is absent. Run `make pages`, or build with `make docs`.")
        files.append(File.generated(config, f"pages/{name}.html", abs_src_path=str(page)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the marker on the gallery page by a table of the pages."""
    if page.file.src_uri != "gallery.md":
        return markdown
    rows = [f"| [{facts['title']}](pages/{name}.html) | `{facts['command']}` |" for name, facts in records()]
    return markdown.replace(MARKER, "\n".join(["| report | command |", "|---|---|", *rows]))
