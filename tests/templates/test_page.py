"""The examples in docs/methods/identity-mapping.md run."""

from __future__ import annotations

from support.documents import run_python


def test_examples_of_the_page_run():
    names = run_python("docs/methods/identity-mapping.md", num_blocks=2)
    assert len(names["record"]) == 128 + 4 * 170
