"""Cost of a protection: images per second, and bytes per face or per template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ppfr.report._blocks import Block, Row, Table
from ppfr.report._figures import MISSING, Figure
from ppfr.report._record_view import Entry, RecordView
from ppfr.report._section import Section
from ppfr.report._wording import rate, size

_RATES = ("Masked, images per s", "Embedded, images per s", "Sent per face")
_TEMPLATE = "Stored per template"


@final
class Cost(Section):
    """Rates of masking and embedding, sizes of masked images and templates."""

    kinds = ("cost",)
    title, anchor = "Cost", "cost"
    is_background = True
    terms = {  # noqa: RUF012
        "Masked image": "The output of the masker. It leaves the device in place of the photo, and is all that the "
        "server sees.",
        "Template": "What is stored of a subject in place of the embedding.",
        "Embedding": "The output of the recogniser for a face. An adversary who has it can impersonate the subject.",
    }

    def is_shown(self, view: RecordView) -> bool:
        """If any system has a masker or templates."""
        return bool(self.columns(view))

    def columns(self, view: RecordView) -> Sequence[str]:
        """Columns of maskers, of template schemes, or of both."""
        has_masker, has_templates = (any(s[part] for s in view.systems) for part in ("masker", "templates"))
        return [*(_RATES if has_masker else ()), *([_TEMPLATE] if has_templates else ())]

    def cells(self, view: RecordView, system: Entry) -> Sequence[Figure]:
        """Rates and sizes."""
        columns, cells = self.columns(view), []
        if _RATES[0] in columns:
            cells += _rates(system, view.row("cost", system=system["name"]))
        if _TEMPLATE in columns:
            templates = system["templates"]
            bytes_figure = MISSING
            if templates is not None:
                bytes_figure = Figure(
                    main=size(templates["bytes_per_template"]), small=f"{templates['out_dim']} values"
                )
            cells.append(bytes_figure)
        return cells

    def blocks(self, view: RecordView) -> Iterable[Block]:
        """The table of all systems, including controls."""
        timed = view.rows("cost")
        sizes = sorted({row["batch_size"] for row in timed})
        batches = f" Timed in batches of {' or '.join(map(str, sizes))} images." if sizes else ""
        yield Table(
            first="System",
            columns=self.columns(view),
            rows=[
                Row(
                    label=view.named(system["name"]),
                    key=view.key(system["name"]),
                    note=system["role"],
                    cells=self.cells(view, system),
                )
                for system in view.systems
            ],
            caption=f"On the machine and with the number of threads of this run.{batches}",
        )


def _rates(system: Entry, row: Entry | None) -> list[Figure]:
    if row is None:
        masker = system["masker"]
        return [MISSING, MISSING, MISSING if masker is None else Figure(main=size(masker["bytes_per_face"]))]
    embeds = row["embed_images_per_s"]
    return [
        Figure(main=rate(row["mask_images_per_s"])),
        MISSING if embeds is None else Figure(main=rate(embeds)),
        Figure(main=size(row["bytes_per_face"]), small=f"{row['bytes_relative_to_image']:.2g} × the 8-bit crop"),
    ]
