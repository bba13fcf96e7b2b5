"""The catalogue of pretrained networks. The weights are not part of ppfr; the user provides a directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ppfr.assets import WEIGHTS_VARIABLE, Asset, find_asset, weights_root
from ppfr.core import InvalidInputError, MissingAssetError, MissingWeightsError
from ppfr.models._backbone import Backbone
from ppfr.models._cards import ModelCard
from ppfr.models._foreign import to_own_names
from ppfr.models._mobilefacenet import MobileFaceNet
from ppfr.models._store import load_tensors, read_tensors

REMEDY = f"Give --weights DIR (or set {WEIGHTS_VARIABLE}) to a directory that holds it."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A pretrained network: its file and its card.

    Attributes:
        asset: the safetensors file, with the public tensor names.
        card: architecture, training data and known overlaps with test data.
        variant: variant of MobileFaceNet.
    """

    asset: Asset
    card: ModelCard
    variant: str


def load_pretrained(name: str, *, weights_dir: Path | None = None) -> tuple[Backbone, ModelCard]:
    """Load a pretrained network, in evaluation mode on the CPU. It takes RGB in [0, 1], (B, 3, 112, 112).

    Args:
        name: a key of `PRETRAINED`.
        weights_dir: directory of the files; by default the one in the environment variable PPFR_WEIGHTS.

    Raises:
        InvalidInputError: the name is unknown.
        MissingWeightsError: the file is missing; names it, its sha256, the places searched and the remedy.
        ChecksumError: the file has other content.
        CheckpointError: its tensors are not those of the network (impossible if the checksum is correct).
    """
    if name not in PRETRAINED:
        raise InvalidInputError(f"unknown pretrained network {name!r}; available: {', '.join(PRETRAINED)}")
    entry = PRETRAINED[name]
    path = find_asset(entry.asset, [_directory(entry, weights_dir)], remedy=REMEDY, error=MissingWeightsError)
    network = MobileFaceNet(variant=entry.variant, seed=0)
    load_tensors(network, to_own_names(read_tensors(path), network, entry.variant), path.name)
    return network.eval(), entry.card


def _directory(entry: Pretrained, given: Path | None) -> Path:
    if given is not None:
        return Path(given)
    try:
        return weights_root()
    except MissingAssetError as error:
        raise MissingWeightsError(
            entry.asset.name,
            looked_in=error.looked_in,
            remedy=f"{REMEDY} {entry.asset.note}",
            sha256=entry.asset.sha256,
        ) from error


def _entry(
    name: str,
    variant: str,
    *,
    file: str,
    sha256: str,
    size_bytes: int,
    training_data: str,
    may_have_seen: tuple[str, ...],
    licence: str,
    source: str,
    notes: str,
) -> Pretrained:
    card = ModelCard(
        name=name,
        architecture="MobileFaceNet",
        config={"in_shape": [3, 112, 112], "dim": 128, "variant": variant, "takes_image": True},
        dim=128,
        in_shape=(3, 112, 112),
        training_data=training_data,
        may_have_seen=may_have_seen,
        licence=licence,
        source=source,
        sha256=sha256,
        notes=notes,
    )
    note = f"It is {source}, its tensors under their own names as safetensors; no public source serves it so."
    asset = Asset(name=file, sha256=sha256, size_bytes=size_bytes, licence=licence, note=note)
    return Pretrained(asset=asset, card=card, variant=variant)


_CASIA_SEEN = (
    "CFP: both hold celebrities, and CASIA-WebFace was not purged of CFP's",
    "LFW: CASIA-WebFace's authors took LFW's people out by name; whom the names missed may remain",
)

PRETRAINED: Mapping[str, Pretrained] = MappingProxyType(
    {
        entry.card.name: entry
        for entry in (
            _entry(
                "mobilefacenet-y1",
                "y1",
                file="mobilefacenet_y1_ms1m.safetensors",
                sha256="de317fc6572e9adbce5797cbe05894081e5a6992d885ced4547246487fe3b356",
                size_bytes=4120336,
                training_data="MS1M (refined MS-Celeb-1M)",
                may_have_seen=(
                    "LFW: MS1M holds many of its celebrities",
                    "CFP: MS1M holds many of its celebrities",
                ),
                licence="InsightFace model zoo: non-commercial research only",
                source="model-0000.params of github.com/honghuCode/mobileFacenet-ncnn at f0d060cc "
                "(InsightFace model zoo, MobileFaceNet y1)",
                notes="BatchNorm eps 1e-3 (2e-5 at the embedding); input (255x - 127.5) / 128",
            ),
            _entry(
                "mobilefacenet-casia",
                "casia",
                file="mobilefacenet_casia.safetensors",
                sha256="a63fa571cea165221b52190e140b68e12f71340a194d7af05dc00b464407f552",
                size_bytes=4118184,
                training_data="CASIA-WebFace",
                may_have_seen=_CASIA_SEEN,
                licence="MIT (of the repository; CASIA-WebFace itself is for research)",
                source="model_data/arcface_mobilefacenet.pth of github.com/bubbliiiing/arcface-pytorch at 0faafe28",
                notes="BatchNorm eps 1e-5; input (255x - 127.5) / 127.5",
            ),
            _entry(
                "mobilefacenet-casia-112x96",
                "casia_112x96",
                file="mobilefacenet_casia_112x96.safetensors",
                sha256="ecf6c1bd879de673cc20ba069551620e6f9ff6c59a2d4565ba360690a7bc5b75",
                size_bytes=4101992,
                training_data="CASIA-WebFace",
                may_have_seen=_CASIA_SEEN,
                licence="none stated by the source: all rights reserved",
                source="model/best/068.ckpt of github.com/Xiaoccer/MobileFaceNet_Pytorch at 26bd8d26",
                notes="looks at columns 8 to 103 of the 112x112 crop; BatchNorm eps 1e-5; input (255x - 127.5) / 128",
            ),
        )
    }
)
