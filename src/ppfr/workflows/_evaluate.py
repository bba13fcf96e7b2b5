"""The workflow of `ppfr evaluate`: evaluates one recogniser on one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppfr.core import as_json, choose_device
from ppfr.evaluation import EvaluationSettings, evaluate
from ppfr.models import NetworkEmbedder, for_inference
from ppfr.systems import check_training_overlap, read_protocol, read_recogniser

_ONLY_IN_RECORDS = ("source", "name", "protocol", "scenario", "roc")


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
    allows_training_overlap: bool = False,
) -> dict[str, Any]:
    """Verify the pairs of a protocol with a public network or a trained system.

    Args:
        model: name of a public network, or directory of a trained system.
        protocol_name: a name that `read_protocol` accepts.
        secret_path: file of the system's secret; None for the default file in its directory.
        flips: also embed the mirrored input and add the embeddings; only for maskers that support it.
        data: directory of real faces, or None for PPFR_DATA.
        weights: directory of public networks, or None for PPFR_WEIGHTS.
        seed: seeds the masker and the bootstrap.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        allows_training_overlap: also evaluate on people that the system was trained on.

    Returns:
        Names of model, masker and protocol, what is embedded ("image alone", or "image also mirrored by the
        recogniser"), the `TrainingOverlap` of the protocol with the system's training data, and the figures of
        `ppfr.evaluation.evaluate` without the ROC curve.

    Raises:
        InvalidInputError: unknown model or protocol.
        OverlapError: the system was trained on people of the protocol, and `allows_training_overlap` is False.
        MissingAssetError: data or weights are not available.
        CheckpointError: files of the system are damaged or do not belong together.
        DeviceError: the device is not available.
        UnsupportableError: `flips`, and the masker of the system cannot mirror its output.
    """
    where = choose_device(device)
    system = read_recogniser(model, secret_path=secret_path, weights=weights)
    protocol = read_protocol(protocol_name, data=data)
    overlap = check_training_overlap(system.trained_on, protocol.used_images(), is_allowed=allows_training_overlap)
    figures = evaluate(
        system.masker,
        NetworkEmbedder(for_inference(system.network).to(where)),
        protocol,
        settings=EvaluationSettings(seed=seed, mirrors_input=flips),
        device=str(where),
    )
    return {
        "model": system.card.name,
        "masker": system.masker.name,
        "protocol": protocol.name,
        "embedded": "image also mirrored by the recogniser" if flips else "image alone",
        "training_overlap": as_json(overlap),
        "may_have_seen": list(system.card.may_have_seen) or "nothing known",
        **{name: value for name, value in as_json(figures).items() if name not in _ONLY_IN_RECORDS},
    }
