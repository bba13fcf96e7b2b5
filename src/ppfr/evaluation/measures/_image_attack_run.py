"""Running one attack on masked images: its training masker, its observations, and its output.

Suffixes: N images of target subjects, D embedding, C H W image, K P Q masked image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ppfr.attacks import FreshSecret
from ppfr.core import (
    Attack,
    AttackResult,
    ImageMasker,
    ImageSet,
    MaskedImages,
    MaskedImagesWithPairs,
    MixedBatch,
    MixedImages,
    MixingMasker,
    ObservedImages,
    ShapeError,
    UnsupportableError,
)
from ppfr.evaluation._embedding import checked_rows, read_images
from ppfr.evaluation._experiment import EvaluationRecogniser
from ppfr.evaluation._masked_pictures import Rendering, blurred_picture
from ppfr.evaluation._session import Session

if TYPE_CHECKING:
    from ppfr.data import PairProtocol
    from ppfr.evaluation.measures._image_attacks import ImageAttackPlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AttackOutput:
    """Output of an attack on masked images. Images are kept for target subjects only.

    Attributes:
        estimates_ND: estimated identity embeddings.
        recovered_NCHW: recovered faces; None if the attack recovers none, or for pairs.
        masked_NCHW: pictures of the masked images; N = 0 for pairs.
        rendered_NCHW: the same by other renderings, by name.
        first_NKPQ: the first masked images; None for pairs.
        share_NN: share of each target subject (column) in what was seen of each (row), hidden from the attack; None
            where nothing is mixed, and for pairs.
        value_range: of masked images.
        notes: facts of the run.
    """

    estimates_ND: np.ndarray
    recovered_NCHW: np.ndarray | None
    masked_NCHW: np.ndarray
    rendered_NCHW: Mapping[Rendering, np.ndarray]
    first_NKPQ: torch.Tensor | None
    share_NN: np.ndarray | None
    value_range: tuple[float, float]
    notes: Mapping[str, Any]


def seen_through(session: Session, plan: ImageAttackPlan) -> ImageMasker:
    """The masker that turns a plain image into what the adversary of a plan sees of it."""
    system = session.experiment.system(plan.system)
    assert system.masker is not None  # checked
    if plan.granted.sees is not MixedImages:
        if system.training is not None and system.masker.spec.is_trainable:
            session.trained(system)  # loads the learned parameters into the masker, if another process trained it
        return system.masker
    exposed = session.trained(system).exposed
    if exposed is None:
        raise UnsupportableError(
            f"System {system.name!r} has no mixed images to attack. Give it a training that mixes."
        )
    return exposed if plan.num_epochs == 1 else exposed.over_epochs(plan.num_epochs)


def training_masker(session: Session, plan: ImageAttackPlan, attack: Attack) -> ImageMasker:
    """The masker that the adversary trains on: the deployed one if it knows the secret, otherwise simulations."""
    deployed = seen_through(session, plan)
    return deployed if attack.needs.knows_secret or not deployed.spec.is_keyed else FreshSecret(deployed)


def run_attack(
    session: Session,
    plan: ImageAttackPlan,
    attack: Attack,
    protocol: PairProtocol,
    *,
    estimate: Callable[[AttackResult], np.ndarray],
    public_images: ImageSet,
    purpose: str,
    indices: list[int],
    renderings: Sequence[Rendering] = (),
) -> AttackOutput:
    """Run a trained attack on masked images of a protocol.

    Args:
        session: of the run.
        plan: of the attack.
        attack: trained.
        protocol: whose images are masked.
        estimate: from the attack's result to (N, D) identity embeddings.
        public_images: where the photo of a known pair comes from, if the plan grants one.
        purpose: "victims" for target subjects, or "pairs"; part of the random streams' names, so it must not change.
        indices: images to mask.
        renderings: renderings of the masked images of target subjects beside the default one.
    """
    masker = seen_through(session, plan)
    observe = _observation(session, plan, masker, public_images)
    is_pictured = purpose == "victims"
    stream = f"observe/{purpose}/{protocol.name}"
    estimates, recovered, masked, shares, notes = [], [], [], [], {}
    rendered: dict[Rendering, list[np.ndarray]] = {name: [] for name in renderings if is_pictured}
    first_NKPQ: torch.Tensor | None = None
    for rows, masked_NKPQ, mixed in _observed(session, masker, protocol, indices, purpose=stream):
        seed = session.seed("attack", attack.name, "run", stream, rows.start)
        result = attack.run(observe(masked_NKPQ), seed=seed)
        num = rows.stop - rows.start
        _check_rows(result, num)
        estimates.append(checked_rows(estimate(result), num, what=f"attack {plan.name!r}"))
        if is_pictured:
            first_NKPQ = masked_NKPQ if first_NKPQ is None else first_NKPQ
            shares += [] if mixed is None else [_shares(mixed, len(indices))]
            _, height, width = masker.spec.in_shape
            masked.append(blurred_picture(masked_NKPQ, masker.spec.value_range, (height, width)))
            for name, parts in rendered.items():
                shown = blurred_picture(masked_NKPQ, masker.spec.value_range, (height, width), rendering=name)
                parts.append(shown)
        if is_pictured and result.recovered_NCHW is not None:
            recovered.append(result.recovered_NCHW.detach().cpu().numpy().astype(np.float32))
        notes = dict(result.notes)
    return AttackOutput(
        estimates_ND=np.concatenate(estimates),
        recovered_NCHW=np.concatenate(recovered) if recovered else None,
        masked_NCHW=np.concatenate(masked) if masked else np.empty((0, *masker.spec.in_shape), dtype=np.float32),
        rendered_NCHW={name: np.concatenate(parts) for name, parts in rendered.items()},
        first_NKPQ=first_NKPQ,
        share_NN=np.concatenate(shares) if shares else None,
        value_range=masker.spec.value_range,
        notes=notes,
    )


def _observed(
    session: Session, masker: ImageMasker, protocol: PairProtocol, indices: list[int], *, purpose: str
) -> Iterator[tuple[slice, torch.Tensor, MixedBatch | None]]:
    """(rows, masked images, what they are mixed from; None if nothing is mixed), part by part."""
    embedding, images = session.embedding, protocol.images
    if isinstance(masker, MixingMasker):
        for rows, mixed in embedding.observed_mixtures(masker, images, indices, purpose=purpose):
            yield rows, mixed.values_BKPQ, mixed
    else:
        for rows, masked_NKPQ in embedding.observed(masker, images, indices, purpose=purpose):
            yield rows, masked_NKPQ, None


def _shares(mixed: MixedBatch, num: int) -> np.ndarray:
    """(B, num) share of each observed image in each mixture."""
    share_BN = np.zeros((len(mixed.partners_Bk), num))
    np.add.at(share_BN, (np.arange(len(share_BN))[:, None], mixed.partners_Bk.numpy()), mixed.weights_Bk.numpy())
    return share_BN


def _observation(
    session: Session, plan: ImageAttackPlan, masker: ImageMasker, public_images: ImageSet
) -> Callable[[torch.Tensor], ObservedImages]:
    """What the adversary of a plan gets together with the masked images of target subjects."""
    if plan.granted.sees is MixedImages:
        return lambda masked_NKPQ: MixedImages(images_NKPQ=masked_NKPQ)
    if plan.granted.sees is not MaskedImagesWithPairs:
        return lambda masked_NKPQ: MaskedImages(images_NKPQ=masked_NKPQ)
    chosen = int(np.random.default_rng(session.seed("known pair")).integers(len(public_images)))
    photo_1CHW = read_images(public_images, [chosen], device=torch.device("cpu"))
    [(_, masked_1KPQ)] = session.embedding.observed(masker, public_images, [chosen], purpose="known pair")
    return lambda masked_NKPQ: MaskedImagesWithPairs(
        images_NKPQ=masked_NKPQ, known_BCHW=photo_1CHW, known_BKPQ=masked_1KPQ
    )


def _check_rows(result: AttackResult, num: int) -> None:
    for values in (result.recovered_NCHW, result.embeddings_ND):
        if values is not None and len(values) != num:
            raise ShapeError(
                f"The attack returned {len(values)} rows for {num} observed images. Return one row per image."
            )


def embed_faces(session: Session, recogniser: EvaluationRecogniser, faces_NCHW: np.ndarray) -> np.ndarray:
    """(N, D) unit rows of plain faces, float in [0, 1], by an evaluation recogniser."""
    tensor = torch.from_numpy(np.ascontiguousarray(faces_NCHW, dtype=np.float32))
    size, device = session.experiment.batch_size, session.device
    rows = [recogniser.embedder.embed(part.to(device)).cpu() for part in tensor.split(size)]
    return checked_rows(torch.cat(rows).numpy(), len(tensor), what=f"evaluation recogniser {recogniser.name!r}")
