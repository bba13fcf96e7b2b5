"""Threat models of attacks on masked images, and checks of maskers and observations against them."""

from __future__ import annotations

from ppfr.attacks._fresh_secret import FreshSecret
from ppfr.core import ImageMasker, MaskedImages, MixedImages, ObservedImages, ShapeError, ThreatModel, ThreatModelError


def masked_images_threat(
    *,
    knows_secret: bool,
    sees: type[ObservedImages] = MaskedImages,
    knows_recogniser: bool | None = None,
    has_public_faces: bool = True,
) -> ThreatModel:
    """An adversary who sees every masked image that reaches the server, or the whole masked training set.

    It knows how the protection works (Kerckhoffs).

    Args:
        knows_secret: it also has the deployment's secret parameters, like a dishonest server. Without them it only
            copies the traffic or the stored masked images.
        sees: `MaskedImages`, or `MixedImages` if the adversary obtained a training set whose images were mixed with
            each other.
        knows_recogniser: it has the deployed recogniser's weights. None follows from the adversary: a server owns its
            recogniser, others do not have it. False is for what an attack needs if it does not use the recogniser.
        has_public_faces: it uses faces of people who are not target subjects.
    """
    if knows_recogniser is None:
        knows_recogniser = knows_secret and sees is MaskedImages
    if sees is MixedImages:
        name = "thief of the training set" if not knows_secret else "thief of the training set with the secret"
    else:
        name = "server with the deployment's secret" if knows_secret else "reader of masked images"
    if knows_recogniser and not knows_secret:
        name += " with the recogniser"
    return ThreatModel(
        name=name,
        sees=sees,
        knows_secret=knows_secret,
        knows_recogniser=knows_recogniser,
        has_public_faces=has_public_faces,
    )


def check_masker(masker: ImageMasker, threat: ThreatModel, *, attack: str) -> None:
    """Refuse to train an attack on a masker that does not match its threat model.

    Raises:
        ThreatModelError: the deployed masker for an adversary without the secret, or a simulation for one with it.
    """
    if not threat.knows_secret and masker.spec.is_keyed:
        raise ThreatModelError(
            f"{attack} does not know the secret (knows_secret=False), but was given {masker.name!r} with its secret; "
            "give it FreshSecret(masker), which simulates the protection with secrets of its own"
        )
    if threat.knows_secret and isinstance(masker, FreshSecret):
        raise ThreatModelError(
            f"{attack} knows the secret (knows_secret=True), but was given {masker.name!r} without it; "
            "give it the deployed masker, or create the attack with knows_secret=False"
        )


def check_observation(seen: ObservedImages, threat: ThreatModel, shape: tuple[int, int, int], *, attack: str) -> None:
    """Refuse an observation that the attack's threat model does not grant, or that it was not trained for.

    Raises:
        ThreatModelError: an observation of another type.
        ShapeError: not (N, K, P, Q) of the masker that the attack was trained on.
    """
    threat.check(seen, attack=attack)
    if tuple(seen.images_NKPQ.shape[1:]) != shape:
        raise ShapeError(
            f"the observation has shape {tuple(seen.images_NKPQ.shape)}; {attack} was trained on "
            f"(N, {', '.join(map(str, shape))}): "
            "mask the target subjects' images with the masker that it was trained against, or fit it again"
        )
