"""The model card: architecture, training data, known overlaps with test data, and licence of a network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from ppfr.core import CheckpointError

_FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Facts about a network, stored with its weights and in every result.

    Attributes:
        name: short name for tables and records, for example "mobilefacenet-y1".
        architecture: class name of the network, as accepted by `build_network`.
        config: JSON-ready constructor arguments, as returned by `Backbone.config()`.
        dim: D, the embedding length.
        in_shape: (K, P, Q) of one input.
        training_data: data sets it was trained on, including those of its teacher and pretrained parts.
        may_have_seen: known overlaps with test data, for example "LFW: MS1M holds many of its celebrities".
        licence: licence of the weights, as stated by their source.
        source: origin of the weights.
        sha256: checksum of the weight file; empty until the weights are saved, set by `load_model`.
        notes: anything else that readers of a result should know.
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
            CheckpointError: the text is not a card of this format; lists missing and unknown fields.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(f"the model card is not JSON ({error}); the file is damaged") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT:
            raise CheckpointError(
                f"the model card does not have format {_FORMAT}; update ppfr, or save the model again"
            )
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
