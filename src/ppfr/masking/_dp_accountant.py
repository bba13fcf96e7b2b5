"""The privacy guarantee of Laplace noise on frequency coefficients, in words and numbers.

Shape suffixes: K frequency channels, P Q block grid, H W pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppfr.core import InvalidInputError, RangeError, ShapeError
from ppfr.masking._grid_noise import STEPS_PER_SCALE
from ppfr.masking._local_binary_patterns import MAX_BITS_PER_PLACE, ColourChannels
from ppfr.masking._noise import LARGEST_DRAW
from ppfr.masking._sensitivities import NoisyFrontEnd

_MAX_MEANINGFUL_EPS = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyStatement:
    """The guarantee of one masker. Every eps refers to local differential privacy with basic composition: eps add up.

    Any outcome is at most e^eps times as likely under one input as under a neighbouring input. Infinity means that
    there is no guarantee.

    Attributes:
        method: name of the masker.
        reasons_void: why no guarantee follows from the noise; empty if one does.
        num_coefficients: number of noisy values per image.
        num_at_a_place: number of noisy values at one place of the grid.
        eps_mean: mean eps of the coefficients.
        eps_least: smallest eps of a coefficient.
        eps_median: median eps of the coefficients.
        eps_largest: largest eps of a coefficient.
        eps_place: eps of one place of the grid: the largest sum over the coefficients at one place.
        eps_pixel: eps between two crops that differ in a single pixel: the largest sum over all values that depend on
            one pixel, including colour.
        eps_coefficients: eps of all noisy coefficients of an image together.
        eps_image: eps of everything that leaves the device for one image, including colour.
        colour: "none", "untouched" or "randomised response".
        num_colour_bits: number of bits of local binary patterns per image.
        eps_colour_bit: eps of one of these bits.
        eps_colour: eps of all these bits together.
        delta: probability with which the bounds of all coefficients of an image may fail: 0 if the keystream is random,
            since no tail of the noise is cut; 1 without a guarantee. It adds up over images like eps.
        largest_draw: where the draws of the noise end, in units of its scale; infinity if they do not end.
        delta_coefficient: the largest delta of one coefficient. For draws that do not end it is 0. For draws that end
            it is the least that any proof would have to allow (`delta_of_ended_draws`); 1 if nothing is proven anyway.
        num_beyond_draws: number of coefficients whose eps is above `largest_draw`.
    """

    method: str
    reasons_void: tuple[str, ...]
    num_coefficients: int
    num_at_a_place: int
    eps_mean: float
    eps_least: float
    eps_median: float
    eps_largest: float
    eps_place: float
    eps_pixel: float
    eps_coefficients: float
    eps_image: float
    colour: str
    num_colour_bits: int
    eps_colour_bit: float
    eps_colour: float
    delta: float
    largest_draw: float
    delta_coefficient: float
    num_beyond_draws: int

    def eps_of_images(self, num_images: int) -> float:
        """The eps of several images of one person. Each image has independent noise, so their eps add up.

        Raises:
            InvalidInputError: `num_images` is below 1.
        """
        if num_images < 1:
            raise InvalidInputError(f"num_images is {num_images}; it must be 1 or more")
        return num_images * self.eps_image

    def in_words(self) -> str:
        """The statement as text, one line per part."""
        if self.reasons_void:
            head = f"{self.method}: no guarantee. " + " ".join(self.reasons_void)
        else:
            head = (
                f"{self.method}: local differential privacy of each coefficient on its own, from Laplace noise on "
                "values clipped to a public range. Each line states by which factor the probability of an outcome may "
                "differ between two inputs. delta is 0 for each and for all together: draws of the noise do not end."
            )
        lines = [head]
        if self.num_coefficients and math.isfinite(self.eps_coefficients):
            lines += [f"- {line}" for line in self._noise_lines()]
        lines += [f"- {line}" for line in self._colour_lines()]
        lines.append(
            f"- One image, everything that leaves the device, any two faces: eps {_number(self.eps_image)}, "
            f"{_worth(self.eps_image)}"
        )
        lines.append(
            f"- Ten images of one person: eps {_number(self.eps_of_images(10))}; each further image adds the same "
            "amount, because the noise of the images is independent and averaging reduces it."
        )
        caveats = _CAVEATS if self.reasons_void else (*_CAVEATS, ARITHMETIC)
        lines += [f"- {line}" for line in caveats]
        return "\n".join(lines)

    def _noise_lines(self) -> list[str]:
        spread = (
            f"{_number(self.eps_least)} to {_number(self.eps_largest)}, median {_number(self.eps_median)}"
            if self.eps_least < 0.999 * self.eps_largest
            else "the same for all"
        )
        return [
            f"One coefficient, any two faces: mean eps {_number(self.eps_mean)} of "
            f"{self.num_coefficients:,} ({spread}), {_worth(self.eps_largest)}",
            f"One place of the grid, {self.num_at_a_place} coefficients: eps {_number(self.eps_place)}, "
            f"{_worth(self.eps_place)}",
            f"One pixel (two crops that differ in no other): eps {_number(self.eps_pixel)}, {_worth(self.eps_pixel)}",
            f"All coefficients of one image: eps {_number(self.eps_coefficients)}, {_worth(self.eps_coefficients)}",
        ]

    def _colour_lines(self) -> list[str]:
        if self.colour == "none":
            return []
        if self.colour == "untouched":
            return [
                f"Colour: {self.num_colour_bits:,} bits of local binary patterns leave the device unchanged. They "
                "have no guarantee, and therefore the output as a whole has none. The figures for coefficients and "
                "places hold only against an adversary who does not use the colour channels."
            ]
        return [
            f"Colour: {self.num_colour_bits:,} bits under randomised response, eps {_number(self.eps_colour_bit)} "
            f"each, {_number(self.eps_colour)} together."
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with infinities as the string "inf"."""
        found = dataclasses.asdict(self) | {"reasons_void": list(self.reasons_void), "in_words": self.in_words()}
        return {key: "inf" if isinstance(value, float) and math.isinf(value) else value for key, value in found.items()}


def delta_of_ended_draws(eps: ArrayLike, largest_draw: float) -> NDArray[np.float64]:
    """The least delta of Laplace noise whose draws end, per coefficient: 1/2 exp(-(largest_draw - eps)).

    At most eps scales are between two inputs of a coefficient. A draw within eps of the end therefore gives an output
    that is impossible under the other input, and 1/2 exp(-(largest_draw - eps)) is its probability. If eps is above
    `largest_draw`, at least half of all outputs are impossible under the other input; 1 stands for no statement.

    Args:
        eps: privacy parameters, 0 or more.
        largest_draw: in units of the noise scale; infinity if draws do not end.

    Returns:
        The shape of `eps`, in [0, 1].

    Examples:
        >>> [f"{float(delta):.1e}" for delta in delta_of_ended_draws([1.0, 16.0, 29.2], 22.18)]
        ['3.2e-10', '1.0e-03', '1.0e+00']
    """
    eps_N = np.asarray(eps, np.float64)
    if math.isinf(largest_draw):
        return np.zeros_like(eps_N)
    tail_N = 0.5 * np.exp(np.minimum(eps_N - largest_draw, 0.0))
    return np.where(eps_N > largest_draw, 1.0, tail_N)


SEEDED_IS_VOID = (
    "void: seeded noise. A generator was passed to mask(). Its noise follows from 32 bits, which can be searched, and "
    "is added in floating point."
)
"""Why no guarantee follows from noise of a generator."""


def end_of_seeded_draws(eps: ArrayLike, largest_draw: float) -> str:
    """What the end of seeded draws means for the given eps of coefficients, in one sentence or two."""
    eps_N = np.asarray(eps, np.float64).ravel()
    num_beyond = int((eps_N > largest_draw).sum())
    within_N = eps_N[eps_N <= largest_draw]
    text = (
        f"Its draws end at {largest_draw:.2f} scales (on a CPU), so that outputs near the end are impossible under a "
        "neighbouring input: even with a secret seed and exact arithmetic, delta of a coefficient would be at least "
        f"1/2 exp(-({largest_draw:.2f} - eps))"
    )
    if len(within_N):
        text += f", {float(delta_of_ended_draws(within_N.max(), largest_draw)):.1e} at eps {_number(within_N.max())}"
    if len(within_N) > 1:
        # Draws are independent: this is the probability that one of the outputs or more is impossible.
        together = -math.expm1(float(np.log1p(-delta_of_ended_draws(within_N, largest_draw)).sum()))
        text += f", and {together:.1e} for these {len(within_N):,} coefficients together"
    if num_beyond:
        text += (
            f". {num_beyond:,} of {len(eps_N):,} coefficients have an eps above {largest_draw:.2f}, where draws that "
            "end prove nothing"
        )
    return text + "."


ARITHMETIC = (
    "Proven, for the numbers as computed without a generator: clipped coefficients are rounded to a grid, noise is a "
    f"whole number of steps, {STEPS_PER_SCALE} to its scale, and all that follows is a function of their sum. So there "
    "are no gaps, unlike in floating point (Mironov, CCS 2012). One step more changes no probability by more than a "
    f"factor of e^(1/{STEPS_PER_SCALE}), and delta is 0, since no tail is cut. Assumed: AES-256 in counter mode, under "
    "a key of the operating system, cannot be told from random bits. Measured: the loss between neighbouring inputs, "
    "by sampling."
)
"""What is proven and what is measured about noise of the operating system."""


EPOCHS_COMPOSE = (
    "If training images are sent masked, each epoch masks them again: E epochs have E times the eps and E times the "
    "delta of one image."
)
"""What a training on masked images costs."""

_CAVEATS = (
    EPOCHS_COMPOSE,
    "Who learns the budget, or measures the ranges, holds clean coefficients of the training images: no noise protects "
    "them from that party.",
    "Not covered: the people in the training set. The ranges are the extremes of single faces, and the learned budget "
    "was fitted to images without noise. Both are public, and neither has noise.",
)


def state_privacy(
    method: str,
    eps_KPQ: np.ndarray,
    front_end: NoisyFrontEnd,
    *,
    colour: ColourChannels | None = None,
    reasons_void: Sequence[str] = (),
    is_seeded: bool = False,
) -> PrivacyStatement:
    """Account for one masker.

    Args:
        method: name of the masker.
        eps_KPQ: eps of each coefficient; infinity where there is no noise.
        front_end: front end of the coefficients; it determines which values depend on a pixel.
        colour: the colour channels, if any.
        reasons_void: why the noise does not give the eps in `eps_KPQ`; if given, every eps is infinite.
        is_seeded: whether the noise came from a generator. Then every eps is infinite, and the statement says what the
            end of the generator's draws would cost even otherwise.

    Raises:
        ShapeError: `eps_KPQ` does not have one value per coefficient of the front end.
        RangeError: values that are negative or not a number.
    """
    eps: np.ndarray = np.asarray(eps_KPQ, np.float64)
    if eps.shape != front_end.out_shape:
        raise ShapeError(f"eps has shape {eps.shape}; it must be the front end's {front_end.out_shape}")
    if not (eps >= 0).all():
        raise RangeError("eps contains values that are negative or not a number; pass LaplaceBudget.accounted_eps()")
    reasons = list(reasons_void)
    if not np.isfinite(eps).all():
        reasons.insert(0, "There is no noise.")
    largest_draw = LARGEST_DRAW if is_seeded else math.inf
    delta_coefficient = 1.0 if reasons else float(delta_of_ended_draws(eps, largest_draw).max())
    num_beyond = 0 if reasons else int((eps > largest_draw).sum())
    if is_seeded:
        reasons.insert(0, SEEDED_IS_VOID + ("" if reasons else f" {end_of_seeded_draws(eps, largest_draw)}"))
    if reasons:
        eps = np.full_like(eps, math.inf)
    place_PQ = eps.sum(0)
    colour_fields = _colour_fields(colour or ColourChannels(kind="none"), place_PQ.size)
    total = math.inf if reasons else float(eps.sum())
    return PrivacyStatement(
        method=method,
        reasons_void=tuple(reasons),
        num_coefficients=eps.size,
        num_at_a_place=len(eps),
        eps_mean=math.inf if reasons else float(eps.mean()),
        eps_least=float(eps.min()),
        eps_median=float(np.median(eps)),
        eps_largest=float(eps.max()),
        eps_place=float(place_PQ.max()),
        eps_pixel=math.inf if reasons else _largest_of_a_pixel(place_PQ, front_end) + colour_fields["eps_pixel"],
        eps_coefficients=total,
        eps_image=total + colour_fields["eps_colour"],
        delta=1.0 if reasons else 0.0,
        largest_draw=largest_draw,
        delta_coefficient=delta_coefficient,
        num_beyond_draws=num_beyond,
        **{key: value for key, value in colour_fields.items() if key != "eps_pixel"},
    )


def _largest_of_a_pixel(place_PQ: np.ndarray, front_end: NoisyFrontEnd) -> float:
    """The largest sum over the blocks that depend on one pixel."""
    reads_PH, reads_QW = front_end.blocks_that_read()
    return float((reads_PH.T.astype(float) @ place_PQ @ reads_QW).max())


def _colour_fields(colour: ColourChannels, num_places: int) -> dict[str, Any]:
    num_bits = 8 * colour.num_planes * num_places
    if num_bits == 0:
        return {"colour": "none", "num_colour_bits": 0, "eps_colour_bit": 0.0, "eps_colour": 0.0, "eps_pixel": 0.0}
    each = math.inf if colour.eps is None else colour.eps
    return {
        "colour": "untouched" if colour.eps is None else "randomised response",
        "num_colour_bits": num_bits,
        "eps_colour_bit": each,
        "eps_colour": num_bits * each,
        "eps_pixel": MAX_BITS_PER_PLACE * colour.num_planes * each,
    }


def _number(eps: float) -> str:
    if math.isinf(eps):
        return "unbounded"
    return f"{eps:,.0f}" if eps >= 100 else f"{eps:.3g}"


def _worth(eps: float) -> str:
    """The meaning of an eps, as the end of a sentence."""
    if math.isinf(eps):
        return "no bound: there is no guarantee."
    factor = f"{math.exp(eps):,.2f}" if eps < _MAX_MEANINGFUL_EPS else f"10^{eps / math.log(10):,.0f}"
    return f"a factor of {factor}" + ("." if eps < _MAX_MEANINGFUL_EPS else ": no meaningful guarantee.")
