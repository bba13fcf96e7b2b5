"""Code blocks of the documentation, as tests run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def code_blocks(page: str | Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language; `page` is relative to the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run_python(page: str, *, num_blocks: int = 1) -> dict[str, Any]:
    """Run the Python blocks of a page in one namespace and return it. The page must have `num_blocks` of them."""
    blocks = code_blocks(page, "python")
    assert len(blocks) == num_blocks, f"{page} has {len(blocks)} Python blocks, expected {num_blocks}"
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec", dont_inherit=True), names)
    return names
