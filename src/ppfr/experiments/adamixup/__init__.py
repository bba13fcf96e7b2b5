"""Experiments of the AdaMixUp paper: its tables."""

from typing import TYPE_CHECKING

from ppfr.core import exports_on_use

if TYPE_CHECKING:
    from ppfr.experiments.adamixup._sections import SECTIONS as SECTIONS
    from ppfr.experiments.adamixup._tables import cfp as cfp
    from ppfr.experiments.adamixup._tables import supervision as supervision
    from ppfr.experiments.adamixup._tables import table1 as table1
    from ppfr.experiments.adamixup._tables import table2 as table2
    from ppfr.experiments.adamixup._tables import table3 as table3
else:
    __getattr__, __dir__ = exports_on_use(
        __name__,
        {
            "_sections": ("SECTIONS",),
            "_tables": ("cfp", "supervision", "table1", "table2", "table3"),
        },
    )
