"""What `ppfr evaluate` does: one recogniser on one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppfr.core import as_json, choose_device
from ppfr.evaluation import EvaluationSettings, evaluate
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems._catalogue import read_protocol
from ppfr.systems._system import read_recogniser

_FOR_THE_REPORT = ("source", "name", "protocol", "scenario", "roc")


def evaluate_model(
    model: str,
    protocol_name: str,
    *,
    secret_path: Path | None,
    flips: bool,
    data: Path | None,
    weights: Path | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Verify a protocol's pairs with a public network or a trained system.

    Args:
        model: a public network's name, or the directory of a trained system.
        protocol_name: a name that `read_protocol` knows.
        secret_path: the system's secret; None for the file beside it.
        flips: add the embedding of the mirrored face.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        seed: of the masks' and the bootstrap's draws.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        Who was tested on what, and the figures of `ppfr.evaluation.evaluate` but for the ROC.

    Raises:
        InvalidInputError: a model or protocol that is none.
        MissingAssetError: data or weights are not there.
        CheckpointError: the system's files are damaged or mixed up.
        DeviceError: the device is not there.
    """
    where = choose_device(device)
    system = read_recogniser(model, secret_path=secret_path, weights=weights)
    protocol = read_protocol(protocol_name, data=data)
    figures = evaluate(
        system.masker,
        NetworkEmbedder(for_inference(system.network).to(where)),
        protocol,
        settings=EvaluationSettings(seed=seed, adds_mirrored=flips),
        device=str(where),
    )
    return {
        "model": system.card.name,
        "masker": system.masker.name,
        "protocol": protocol.name,
        "may_have_seen": list(system.card.may_have_seen) or "nothing known",
        **{name: value for name, value in as_json(figures).items() if name not in _FOR_THE_REPORT},
    }
