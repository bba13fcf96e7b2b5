"""ONNX export with a parity check: the file is run and compared with the network before it is kept.

Shapes: `B` batch, `K P Q` the input's channels and grid, `D` embedding.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ppfr.assets import write_atomically
from ppfr.core import CheckpointError, InvalidInputError, MissingExtraError
from ppfr.models._backbone import Backbone
from ppfr.models._cards import ModelCard

_BATCHES_CHECKED = (1, 3)
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def export_onnx(
    network: Backbone, path: Path, *, card: ModelCard | None = None, opset: int = 18, tolerance: float = 1e-4
) -> float:
    """Write `network` as one ONNX file: input "input" (batch, K, P, Q), output "embedding" (batch, D) of unit norm.

    The batch size is dynamic. An image network takes RGB in [0, 1], and its scaling is part of the graph. The file is
    run in ONNX Runtime on batches of 1 and 3 random inputs, and kept only if it agrees with the network.

    Args:
        network: any backbone, on any device. It is not changed.
        path: output file; must end in .onnx.
        card: stored in the metadata of the file as "ppfr_card".
        opset: ONNX operator set.
        tolerance: maximum absolute difference of any coordinate of a unit embedding.

    Returns:
        The maximum absolute difference.

    Raises:
        MissingExtraError: onnx, onnxruntime or onnxscript is not installed.
        InvalidInputError: the path does not end in .onnx.
        CheckpointError: the exported network differs by more than `tolerance`. Nothing is written.
        StorageError: the disk is full or the directory is not writable.
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtraError("onnx", "ONNX export")
    path = Path(path)
    if path.suffix != ".onnx":
        raise InvalidInputError(f"{path.name} must end in .onnx, which other tools rely on")
    unit = _UnitNorm(copy.deepcopy(network).cpu().float()).eval()
    with write_atomically(path) as temporary:
        _export(unit, temporary, opset)
        if card is not None:
            _write_card(temporary, card)
        difference = _largest_difference(unit, temporary)
        if not difference <= tolerance:
            raise CheckpointError(
                f"the exported network differs from the original by up to {difference:.2g} in a coordinate of a unit "
                f"embedding; tolerance={tolerance:.2g}. Nothing was written. Try another opset, or a larger tolerance"
            )
    return difference


class _UnitNorm(nn.Module):
    """A backbone with unit-norm output. Bypasses the shape check of the backbone, which cannot be exported."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BKPQ: Tensor) -> Tensor:
        """(B, K, P, Q) -> (B, D), unit norm."""
        features = self.network.entry(x_BKPQ)
        for part in self.network.parts.values():
            features = part(features)
        return functional.normalize(self.network.head(features), dim=1)


def _export(unit: _UnitNorm, path: Path, opset: int) -> None:
    # Use two examples, because the exporter treats a batch size of one as a constant.
    example = torch.zeros(2, *unit.network.in_shape)
    with torch.no_grad(), _quiet_exporter():
        torch.onnx.export(
            unit,
            (example,),
            path,
            dynamo=True,
            input_names=["input"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress warnings of the exporter about its internals and about packages that these networks do not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _write_card(path: Path, card: ModelCard) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"ppfr_card": card.to_json()})
    onnx.save(model, path)


def _largest_difference(unit: _UnitNorm, path: Path) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for num in _BATCHES_CHECKED:
        shape = (num, *unit.network.in_shape)
        x = torch.rand(shape, generator=rng) if unit.network.takes_image else torch.randn(shape, generator=rng)
        with torch.inference_mode():
            expected = unit(x).numpy()
        (found,) = session.run(["embedding"], {"input": x.numpy()})
        if found.shape != expected.shape:
            raise CheckpointError(
                f"the exported network returns {found.shape} for {num} inputs, expected {expected.shape}"
            )
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
