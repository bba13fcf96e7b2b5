"""Masked images as files: float16 values and the public description, in one safetensors file."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ppfr.assets import write_atomically
from ppfr.core import ImageMasker, ImageReadError, RangeError, ShapeError

SCHEMA = "ppfr-masked/1"
_TENSOR = "masked"

Noise = Literal["none", "system", "seeded", "unrecorded"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedFile:
    """A masked batch as it was sent, with the sender's description.

    Attributes:
        values_BKPQ: float32, widened from the float16 that was sent.
        method: name of the masker, such as "ppfr-fd".
        config: public constructor arguments of the masker, without the secret.
        noise: "none" if the masker draws nothing, "system" if it drew from the operating system, "seeded" if it was
            given a generator, and "unrecorded" in files of versions before 0.2, whose noise has 32 bits of a seed.
        privacy: the masker's privacy statement about these values in words; None if it makes none.
    """

    values_BKPQ: Tensor
    method: str
    config: Mapping[str, Any]
    noise: Noise
    privacy: str | None

    def __repr__(self) -> str:
        shape = tuple(self.values_BKPQ.shape)
        shown = f"method={self.method!r}, shape={shape}, noise={self.noise!r}, config={dict(self.config)}"
        return f"MaskedFile({shown}, values=<redacted>)"


def write_masked(path: Path, masked_BKPQ: Tensor, masker: ImageMasker, *, is_seeded: bool) -> None:
    """Write masked images as float16 with the masker's public description, atomically.

    Args:
        path: the file to write, usually with suffix .safetensors; an existing file is replaced.
        masked_BKPQ: output of `masker.mask`.
        masker: the masker that made it; only `name`, `public_config()` and the words of `guarantee()` are written.
        is_seeded: whether `masker.mask` was given a generator. The file says so, and its privacy statement is void.

    Raises:
        ShapeError: the shape is not the masker's output shape.
        RangeError: values are beyond 65504, the range of float16, or not finite.
        StorageError: the file cannot be written.
    """
    if masked_BKPQ.ndim != 4 or tuple(masked_BKPQ.shape[1:]) != masker.spec.out_shape:
        raise ShapeError(
            f"masked has shape {tuple(masked_BKPQ.shape)}; the output of {masker.name} is (B, "
            f"{', '.join(map(str, masker.spec.out_shape))}): write it with the masker that made it"
        )
    values = masked_BKPQ.detach().to("cpu", torch.float16).contiguous()
    if not bool(values.isfinite().all()):
        raise RangeError("masked contains values that float16 cannot hold (beyond 65504, or not finite); rescale them")
    noise: Noise = ("seeded" if is_seeded else "system") if masker.spec.is_stochastic else "none"
    metadata = {"schema": SCHEMA, "method": masker.name, "config": json.dumps(dict(masker.public_config()))}
    metadata["noise"] = noise
    guarantee = masker.guarantee(is_seeded=noise == "seeded")
    if guarantee is not None:
        metadata["privacy"] = str(guarantee["in_words"])
    with write_atomically(Path(path)) as temporary:
        save_file({_TENSOR: values}, temporary, metadata=metadata)


def read_masked(path: Path) -> MaskedFile:
    """Read a file written by `write_masked`.

    Warns if noise was seeded, or if the file does not record whether it was: such noise can be removed.

    Raises:
        ImageReadError: the file is missing, damaged, of another kind, or of another version.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ImageReadError(
                    f"{path} has schema {metadata.get('schema')!r}, this version reads {SCHEMA!r}; "
                    "create it again with `ppfr mask`, or read it with the version that wrote it"
                )
            values = opened.get_tensor(_TENSOR)
        config = json.loads(metadata["config"])
        method = metadata["method"]
        noise: Noise = metadata.get("noise", "unrecorded")
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        kind = "does not exist" if not path.exists() else "is damaged or not a file of masked images"
        raise ImageReadError(f"{path} {kind}; create it again with `ppfr mask`") from error
    if (
        values.ndim != 4
        or values.dtype != torch.float16
        or not isinstance(config, dict)
        or noise not in get_args(Noise)
    ):
        raise ImageReadError(
            f"{path} does not hold (B, K, P, Q) float16 values, a config and a known kind of noise; "
            "create it again with `ppfr mask`"
        )
    if noise in ("seeded", "unrecorded"):
        reason = "seeded noise" if noise == "seeded" else "noise of unrecorded origin, if its method draws any"
        warnings.warn(
            f"{path} has {reason}: noise of a seed can be found and removed. Mask the photo again without `rng` to "
            "protect it.",
            stacklevel=2,
        )
    return MaskedFile(
        values_BKPQ=values.float(), method=method, config=config, noise=noise, privacy=metadata.get("privacy")
    )
