"""Workflows of `ppfr data`, `ppfr models` and `ppfr doctor`."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ppfr
from ppfr.assets import Asset, data_root, fetch, find_asset, weights_root
from ppfr.core import InvalidInputError, PpfrError, ProblemsError, spinning_in_words
from ppfr.data import FileImageSet, fetch_lfw, list_photos, read_lfw_images, write_crop
from ppfr.experiments.spine import RECOGNISER, TEACHER
from ppfr.models import PRETRAINED, Backbone, Lpips, ModelCard, export_onnx, load_model, load_pretrained, read_card
from ppfr.synthetic import SyntheticFaces
from ppfr.systems import NETWORK_FILE, PROTOCOLS, read_images, read_protocol
from ppfr.workflows._photos import YUNET, find_yunet

_PACKAGES = ("torch", "lightning", "numpy", "scipy", "opencv-python-headless", "safetensors")
_EXTRAS = {"onnx": ("onnx", "onnxruntime", "onnxscript")}
_READ_AT_ONCE = 256
_DEMO_GIB = 4


def describe_data(data: Path | None) -> dict[str, Any]:
    """Protocols and training sets in the data directory, with counts."""
    found: dict[str, Any] = {"directory": str(data_root(data))}
    for name in PROTOCOLS:
        try:
            protocol = read_protocol(name, data=data)
        except PpfrError as error:
            found[name] = f"not available: {error}"
            continue
        people = len(protocol.subjects())
        found[name] = (
            f"{len(protocol)} pairs in {protocol.num_folds} folds, {len(protocol.used())} images, {people} people"
        )
    for name in ("lfw-train", "cfp-train"):
        try:
            images = read_images(name, data=data)
        except PpfrError as error:
            found[name] = f"not available: {error}"
            continue
        found[name] = f"{len(images)} images, {len(set(images.subject_ids))} people"
    return found


def check_images(source: str, *, data: Path | None) -> dict[str, Any]:
    """Decode every image of a data set, and count the files of a folder that are not part of it.

    Raises:
        ProblemsError: images that cannot be read; all are listed.
        InvalidInputError: links in the folder form a cycle.
    """
    images = read_images(source, data=data)
    problems: list[str] = []
    for start in range(0, len(images), _READ_AT_ONCE):
        indices = range(start, min(start + _READ_AT_ONCE, len(images)))
        try:
            images.read(indices)
        except PpfrError:
            problems += [text for index in indices if (text := _problem(images, index))]
    if problems:
        raise ProblemsError(f"{images.name} contains images that cannot be read", problems)
    found: dict[str, Any] = {"name": images.name, "images": len(images), "people": len(set(images.subject_ids))}
    if isinstance(images, FileImageSet):  # a folder with one folder per subject
        found["files_left_out"] = list_photos(Path(source)).describe_left_out(read=images.paths)
    return found


def _problem(images: Any, index: int) -> str:
    try:
        images.read([index])
    except PpfrError as error:
        return str(error)
    return ""


def fetch_data_set(name: str, root: Path, *, weights: Path | None) -> dict[str, Any]:
    """Download a public data set and align it.

    Raises:
        InvalidInputError: the data set cannot be downloaded; the message explains how to get it.
    """
    if name != "lfw":
        raise InvalidInputError(
            f"{name!r} cannot be downloaded; only `lfw` can. CFP is distributed by its authors (cfpw.io): extract it, "
            "run `ppfr align` on it, and arrange the files as described in docs/how-to/real-data.md."
        )
    images = fetch_lfw(root, yunet_path=find_yunet(weights))
    return {"name": images.name, "images": len(images), "people": len(set(images.subject_ids)), "directory": str(root)}


def write_synthetic(out_dir: Path, *, num_subjects: int, images_per_subject: int, seed: int) -> dict[str, Any]:
    """Write synthetic faces as PNG files, with one folder per subject."""
    faces = SyntheticFaces(num_subjects, images_per_subject, seed=seed)
    counts: dict[str, int] = {}
    for start in range(0, len(faces), _READ_AT_ONCE):
        indices = range(start, min(start + _READ_AT_ONCE, len(faces)))
        for index, image_HWC in zip(indices, faces.read(indices), strict=True):
            subject = faces.subject_ids[index].replace("/", "-")
            counts[subject] = counts.get(subject, 0) + 1
            write_crop(image_HWC, out_dir / subject / f"{counts[subject]:04d}.png")
    return {"directory": str(out_dir), "images": len(faces), "people": num_subjects}


def describe_models(weights: Path | None) -> list[dict[str, Any]]:
    """The public networks: card, licence, and whether they are installed."""
    rows = []
    for name, entry in PRETRAINED.items():
        try:
            where = str(_find(entry.asset, weights))
        except PpfrError:
            where = f"not installed: put {entry.asset.name} into --weights DIR. {entry.asset.note}"
        rows.append({"name": name, **_card_facts(entry.card), "file": where})
    return rows


def fetch_networks(directory: Path) -> dict[str, Any]:
    """Download the networks that have a public source into `directory`, and describe how to get the others.

    Raises:
        MissingAssetError: no source served the file.
        ChecksumError: a source served different bytes; nothing is kept.
        StorageError: the disk is full or the directory is not writable.
    """
    path = fetch(YUNET, directory, progress=True)
    by_hand = [f"{entry.asset.name}: {entry.asset.note}" for entry in PRETRAINED.values() if not entry.asset.urls]
    return {"fetched": [str(path)], "by_hand": by_hand}


def describe_model(model: str, *, weights: Path | None) -> dict[str, Any]:
    """The model card of a public network, of a file, or of the network of a trained system."""
    if model in PRETRAINED:
        network, card = load_pretrained(model, weights_dir=weights)
        return {"name": card.name, **_card_facts(card), "parameters": _num_parameters(network)}
    card = read_card(_network_file(model))
    return {"name": card.name, **_card_facts(card)}


def export_network(model: str, out_path: Path, *, weights: Path | None) -> dict[str, Any]:
    """Export a network to ONNX and compare its embeddings with onnxruntime.

    Raises:
        InvalidInputError: `model` is not a model, or the file name does not end in .onnx.
        MissingExtraError: the onnx extra is not installed.
    """
    if out_path.suffix != ".onnx":
        raise InvalidInputError(f"The output file must end in .onnx, got {out_path}.")
    network, card = (
        load_pretrained(model, weights_dir=weights) if model in PRETRAINED else load_model(_network_file(model))
    )
    difference = export_onnx(network, out_path, card=card)
    return {
        "file": str(out_path),
        "model": card.name,
        "largest_difference": difference,
        "size_bytes": out_path.stat().st_size,
    }


def _network_file(model: str) -> Path:
    path = Path(model) / NETWORK_FILE if Path(model).is_dir() else Path(model)
    if path.suffix == ".safetensors":
        return path
    raise InvalidInputError(
        f"{model!r} is not a public network ({', '.join(PRETRAINED)}), a .safetensors file or the directory of a"
        " trained system."
    )


def examine_machine(*, data: Path | None, weights: Path | None) -> dict[str, Any]:
    """Versions, device, memory, data, weights and extras, and what is missing for each task."""
    packages = {name: _version(name) for name in _PACKAGES}
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    extras = {
        name: "installed" if all(map(importlib.util.find_spec, modules)) else f"pip install 'ppfr[{name}]'"
        for name, modules in _EXTRAS.items()
    }
    missing = [name for name, found in packages.items() if found == "missing"]
    return {
        "ppfr": ppfr.__version__,
        "python": platform.python_version(),
        "packages": packages,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "thread_waiting": spinning_in_words(),
        "memory_gib": round(gib, 1),
        "cuda_devices": cuda or "none",
        "extras": extras,
        "data": _try(lambda: data_root(data)),
        "weights": _try(lambda: weights_root(weights)),
        "jobs": {
            "demo": f"missing packages: {', '.join(missing)}" if missing else _memory_verdict(gib),
            "photos": _try(lambda: find_yunet(weights), ready="ready"),
            "real faces": _real_faces_verdict(data, weights),
            "export": "ready" if extras["onnx"] == "installed" else extras["onnx"],
            "gpu": "ready" if cuda else "no CUDA device: --preset paper is not practical",
        },
        "can_run_demo": not missing,
    }


def _memory_verdict(gib: float) -> str:
    return "ready" if gib >= _DEMO_GIB else f"may run out of memory: {_DEMO_GIB} GiB are recommended"


def _real_faces_verdict(data: Path | None, weights: Path | None) -> str:
    wanted: list[tuple[str, Callable[[], object]]] = [
        ("lfw112/ (`ppfr data fetch lfw --data DIR`)", lambda: read_lfw_images(data_root(data)))
    ]
    networks = [PRETRAINED[name].asset for name in (TEACHER, RECOGNISER)]
    wanted += [(asset.name, functools.partial(_find, asset, weights)) for asset in networks]
    wanted.append(("lpips_squeeze.safetensors", lambda: Lpips.from_weights(weights)))
    missing = [name for name, get in wanted if _try(get).startswith("missing")]
    return f"missing: {', '.join(missing)}" if missing else "ready"


def _find(asset: Asset, weights: Path | None) -> Path:
    return find_asset(asset, [weights_root(weights)], remedy="")


def _card_facts(card: ModelCard) -> dict[str, Any]:
    return {
        "architecture": card.architecture,
        "input": "x".join(map(str, card.in_shape)),
        "embedding": card.dim,
        "training_data": card.training_data,
        "may_have_seen": list(card.may_have_seen) or "none known",
        "licence": card.licence,
        "source": card.source,
        "sha256": card.sha256,
    }


def _num_parameters(network: Backbone) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _try(get: Callable[[], object], *, ready: str = "") -> str:
    """The result of `get` (or `ready`), or "missing: ..." with the error."""
    try:
        found = get()
    except PpfrError as error:
        return f"missing: {error}"
    return ready or str(found)
