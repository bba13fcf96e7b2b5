"""Tensor names of the public MobileFaceNet checkpoints, in the order of the layers of `MobileFaceNet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from ppfr.core import CheckpointError
from ppfr.models._mobilefacenet import ConvUnit, MobileFaceNet

# Names of the tensors of one ConvUnit: a function from the own suffix to the foreign name.
Naming = Callable[[str], str]
_NUM_RESIDUAL = (4, 6, 2)


def to_own_names(foreign: Mapping[str, Tensor], network: MobileFaceNet, source: str) -> dict[str, Tensor]:
    """Rename the tensors of a public checkpoint to those of `network`. Every tensor must be used.

    Args:
        foreign: name -> tensor of the public file.
        network: the variant of the file.
        source: "y1", "casia" or "casia_112x96".

    Raises:
        CheckpointError: tensors are missing or left over.
    """
    names = dict(_names(network, source))
    missing = [name for name in names.values() if name not in foreign]
    left_over = sorted(set(foreign) - set(names.values()))
    if missing or left_over:
        raise CheckpointError(
            f"not the tensors of a public {source} checkpoint: missing {shown(missing)}; left over "
            f"{shown(left_over)}. Check that the file belongs to this network"
        )
    own = {}
    state = network.state_dict()
    for mine, theirs in names.items():
        # A 1x1 convolution over a 1x1 grid equals the fully connected layer.
        tensor = foreign[theirs].flatten(1) if mine == "head.linear.weight" else foreign[theirs]
        own[mine] = tensor
    for mine, tensor in state.items():
        if mine.endswith("num_batches_tracked"):
            own[mine] = tensor
    return own


def shown(names: list[str], max_names: int = 6) -> str:
    """A list of tensor names for a message, truncated after `max_names`."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return (", ".join(names[:max_names]) + more) if names else "none"


def _names(network: MobileFaceNet, source: str) -> Iterator[tuple[str, str]]:
    """(own name, foreign name) of every tensor except the batch counters of BatchNorm."""
    units = list(_units(network))
    for (own, unit), naming in zip(units, _SOURCES[source](), strict=True):
        yield f"{own}.conv.weight", naming("conv.weight")
        for suffix in ("weight", "bias", "running_mean", "running_var"):
            yield f"{own}.norm.{suffix}", naming(f"norm.{suffix}")
        if isinstance(unit.act, nn.PReLU):
            yield f"{own}.act.weight", naming("act.weight")
    for suffix, theirs in _LAST[source].items():
        yield f"head.{suffix}", theirs


def _units(network: MobileFaceNet) -> Iterator[tuple[str, ConvUnit]]:
    """ConvUnits in the order of computation, which is that of construction."""
    for name, module in network.named_modules():
        if isinstance(module, ConvUnit):
            yield name, module


def _joined(prefix: str, table: Mapping[str, str]) -> Naming:
    return lambda suffix: prefix + table[suffix]


def _y1() -> Iterator[Naming]:
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    table = {f"norm.{own}": f"batchnorm_{theirs}" for own, theirs in norm.items()}
    table |= {"conv.weight": "conv2d_weight", "act.weight": "relu_gamma"}
    prefixes = ["conv_1_", "conv_2_dw_"]
    for stage, num in zip((3, 4, 5), _NUM_RESIDUAL, strict=True):
        blocks = [f"dconv_{stage - 1}{stage}", *(f"res_{stage}_block{i}" for i in range(num))]
        prefixes += [f"{block}_conv_{layer}_" for block in blocks for layer in ("sep", "dw", "proj")]
    for prefix in [*prefixes, "conv_6sep_", "conv_6dw7_7_"]:
        yield _joined(prefix, table)


_TORCH_NORM = {f"norm.{suffix}": f"bn.{suffix}" for suffix in ("weight", "bias", "running_mean", "running_var")}
_TORCH_UNIT = {"conv.weight": "conv.weight", "act.weight": "prelu.weight", **_TORCH_NORM}


def _casia() -> Iterator[Naming]:
    prefixes = ["conv1.", "conv2_dw."]
    for stage, num in zip((3, 4, 5), _NUM_RESIDUAL, strict=True):
        blocks = [f"conv_{stage - 1}{stage}", *(f"conv_{stage}.model.{i}" for i in range(num))]
        prefixes += [f"{block}.{layer}." for block in blocks for layer in ("conv", "conv_dw", "project")]
    for prefix in prefixes:
        yield _joined(prefix, _TORCH_UNIT)
    yield _joined("", {own: f"sep_{theirs}" for own, theirs in _TORCH_NORM.items()} | {
        "conv.weight": "sep.weight", "act.weight": "prelu.weight"
    })  # fmt: skip
    yield _joined("GDC_", {**_TORCH_NORM, "conv.weight": "dw.weight"})


def _casia_112x96() -> Iterator[Naming]:
    yield _joined("conv1.", _TORCH_UNIT)
    yield _joined("dw_conv1.", _TORCH_UNIT)
    for block in range(sum(_NUM_RESIDUAL) + 3):
        for first in (0, 3, 6):  # a flat list of convolution, BatchNorm, PReLU, thrice less the last PReLU
            norm = {own: theirs.replace("bn", str(first + 1)) for own, theirs in _TORCH_NORM.items()}
            own = {"conv.weight": f"{first}.weight", "act.weight": f"{first + 2}.weight", **norm}
            yield _joined(f"blocks.{block}.conv.", own)
    yield _joined("conv2.", _TORCH_UNIT)
    yield _joined("linear7.", _TORCH_UNIT)


_SOURCES: Mapping[str, Callable[[], Iterator[Naming]]] = MappingProxyType(
    {"y1": _y1, "casia": _casia, "casia_112x96": _casia_112x96}
)


def _last(linear: str, norm: str, suffixes: tuple[str, str, str, str]) -> dict[str, str]:
    own = ("weight", "bias", "running_mean", "running_var")
    return {"linear.weight": linear} | {f"norm.{mine}": norm + their for mine, their in zip(own, suffixes, strict=True)}


_TORCH = ("weight", "bias", "running_mean", "running_var")
_LAST: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "y1": {
            **_last("fc1_weight", "fc1_", ("gamma", "beta", "moving_mean", "moving_var")),
            "linear.bias": "pre_fc1_bias",
        },
        "casia": _last("features.weight", "last_bn.", _TORCH),
        "casia_112x96": _last("linear1.conv.weight", "linear1.bn.", _TORCH),
    }
)
