"""The model card: what a network is, what it was trained on, whom it may have seen, and under which terms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from ppfr.core import CheckpointError

_FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Facts of a network that travel with its weights and into every result.

    Attributes:
        name: short name for tables and records, as in "mobilefacenet-y1".
        architecture: name of the network's class, as `build_network` takes it.
        config: the architecture's JSON-ready constructor arguments, as `Backbone.config()` gives them.
        dim: D, the embedding's length.
        in_shape: (K, P, Q) of one input.
        training_data: data sets it was trained on, its teacher's and its pretrained parts' included.
        may_have_seen: known overlaps with test data, as in "LFW: MS1M holds many of its celebrities".
        licence: terms of the weights as their source states them.
        source: where the weights come from.
        sha256: checksum of the weights' file; empty until they are stored, filled in by `load_model`.
        notes: anything else a reader of a result should know.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    dim: int
    in_shape: tuple[int, int, int]
    training_data: str
    may_have_seen: tuple[str, ...] = ()
    licence: str
    source: str
    sha256: str = ""
    notes: str = ""

    def to_json(self) -> str:
        """The card as JSON text, with a format number."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["config"] = dict(self.config)
        return json.dumps({"format": _FORMAT, **fields}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: no card of this format; says which fields are missing or unknown.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(f"the model card is not JSON ({error}); the file is damaged") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT:
            raise CheckpointError(f"the model card is not of format {_FORMAT}; update ppfr, or save the model again")
        known = {field.name for field in dataclasses.fields(cls)}
        needed = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        missing, unknown = sorted(needed - set(fields)), sorted(set(fields) - known)
        if missing or unknown:
            raise CheckpointError(
                f"the model card lacks {', '.join(missing) or 'nothing'} and has unknown {', '.join(unknown) or 'none'}"
            )
        channels, rows, columns = fields["in_shape"]
        fields["in_shape"] = (channels, rows, columns)
        fields["may_have_seen"] = tuple(fields.get("may_have_seen", ()))
        return cls(**fields)
