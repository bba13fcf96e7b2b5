"""HFCF's ablation, its identity mapping, 1:N, secure matching, and all of them end to end."""

from typing import TYPE_CHECKING

from ppfr.core import exports_on_use

if TYPE_CHECKING:
    from ppfr.experiments.hfcf._ablation import ablation as ablation
    from ppfr.experiments.hfcf._end_to_end import end_to_end as end_to_end
    from ppfr.experiments.hfcf._end_to_end import secure_formats as secure_formats
    from ppfr.experiments.hfcf._sections import SECTIONS as SECTIONS
    from ppfr.experiments.hfcf._secure_decisions import secure_decisions as secure_decisions
    from ppfr.experiments.hfcf._smpc import smpc as smpc
    from ppfr.experiments.hfcf._templates import mapping as mapping
    from ppfr.experiments.hfcf._templates import one_to_n as one_to_n
else:
    __getattr__, __dir__ = exports_on_use(
        __name__,
        {
            "_ablation": ("ablation",),
            "_end_to_end": ("end_to_end", "secure_formats"),
            "_sections": ("SECTIONS",),
            "_secure_decisions": ("secure_decisions",),
            "_smpc": ("smpc",),
            "_templates": ("mapping", "one_to_n"),
        },
    )
