"""The training sets of a system: their file, and the overlap with a test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ppfr.core import CheckpointError, OverlapError
from ppfr.data import ArrayImageSet, subject_hash
from ppfr.masking import Unprotected
from ppfr.models import PRETRAINED, MobileFaceNet, card_for
from ppfr.systems import (
    TRAINED_ON_FILE,
    MaskedSystem,
    TrainingOverlap,
    TrainingSet,
    check_training_overlap,
    load_system,
    save_system,
)
from ppfr.systems._strategies import _system
from ppfr.systems._training_sets import read_training_sets
from support.damage import outcomes

PEOPLE = ["José_Núñez", "Ann_Lee", "Bob_Ray", "LeBron_James"]
NETWORK = "ab" * 32
GOLDEN = """{
 "format": 1,
 "network_sha256": "abababababababababababababababababababababababababababababababab",
 "sets": [
  {
   "name": "mine",
   "num_images": 2,
   "num_subjects": 1,
   "num_unnamed": 0,
   "subject_hashes": [
    "5d65d03b0ac0513049101d76dceb41ed0b47a11a5b533e4938494caff241ae17"
   ]
  },
  {
   "name": "net: MS1M",
   "num_images": null,
   "num_subjects": null,
   "num_unnamed": null,
   "subject_hashes": null
  }
 ],
 "sha256": "75df1b8149780b280b3919bcde5995882c6db6670c2be457ba3e66a6fff4fdd4"
}
"""


def images_of(subject_ids: Sequence[str], name: str = "faces") -> ArrayImageSet:
    return ArrayImageSet(np.zeros((len(subject_ids), 112, 112, 3), np.uint8), subject_ids, name=name)


def system_of(*sets: TrainingSet, seed: int = 1) -> MaskedSystem:
    network = MobileFaceNet(variant="small", in_shape=(3, 112, 112), dim=16, seed=seed).eval()
    card = card_for(network, name="test", training_data="none", licence="MIT", source="test")
    return MaskedSystem(masker=Unprotected(), network=network, card=card, trained_on=sets)


def test_people_are_saved_as_hashes_and_loaded(tmp_path: Path) -> None:
    trained_on = TrainingSet.of(images_of([*PEOPLE, "ann lee"], name="mine"))
    assert (trained_on.num_images, trained_on.num_subjects, trained_on.num_unnamed) == (5, 4, 0)
    assert trained_on.subject_hashes == tuple(sorted(map(subject_hash, PEOPLE)))
    save_system(tmp_path, system_of(trained_on))
    path = tmp_path / TRAINED_ON_FILE
    assert not any(part in path.read_text(encoding="utf-8").lower() for part in ("ann", "nunez", "lebron"))
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = load_system(tmp_path)
    assert loaded.trained_on == (trained_on,)
    assert subject_hash("Ann_Lee") not in repr(loaded.trained_on)


def test_people_can_be_left_out_of_the_file(tmp_path: Path) -> None:
    save_system(tmp_path, system_of(TrainingSet.of(images_of(PEOPLE, name="mine"))), lists_subjects=False)
    assert not any(subject_hash(person) in (tmp_path / TRAINED_ON_FILE).read_text() for person in PEOPLE)
    (loaded,) = load_system(tmp_path).trained_on
    assert (loaded.num_subjects, loaded.subject_hashes) == (4, None)
    overlap = check_training_overlap([loaded], images_of(PEOPLE))
    assert overlap.status == "unknown" and overlap.unchecked == ("mine: its people are not listed",)


def test_training_data_is_unknown_without_the_file(tmp_path: Path) -> None:
    save_system(tmp_path, system_of(TrainingSet.of(images_of(PEOPLE))))
    (tmp_path / TRAINED_ON_FILE).unlink()
    trained_on = load_system(tmp_path).trained_on
    overlap = check_training_overlap(trained_on, images_of(PEOPLE))
    assert (trained_on, overlap.status, overlap.num_shared, overlap.num_people) == ((), "unknown", None, 4)
    assert TRAINED_ON_FILE in overlap.unchecked[0]


def test_golden_file_stays_readable_and_damage_is_found(tmp_path: Path) -> None:
    def read(content: bytes) -> tuple[TrainingSet, ...]:
        (tmp_path / TRAINED_ON_FILE).write_bytes(content)
        return read_training_sets(tmp_path, network_sha256=NETWORK)

    named, public = read(GOLDEN.encode())
    assert (named.name, named.num_images, named.subject_hashes) == ("mine", 2, (subject_hash("Ann_Lee"),))
    assert (public.name, public.num_subjects, public.subject_hashes) == ("net: MS1M", None, None)
    found = outcomes(GOLDEN.encode(), 400, read, CheckpointError, seed=1)
    assert found["CheckpointError"] > 350


def test_file_of_another_system_or_format_is_refused(tmp_path: Path) -> None:
    save_system(tmp_path / "one", system_of(TrainingSet.of(images_of(PEOPLE))))
    save_system(tmp_path / "two", system_of(TrainingSet.of(images_of(["Cy_Fox"])), seed=2))
    whole = (tmp_path / "two" / TRAINED_ON_FILE).read_bytes()
    for content, expected in (
        (whole, r"trained-on\.json belongs to another network.*delete it"),
        (b"[]", "is damaged.*restore it"),
        (b"", "is damaged"),
    ):
        (tmp_path / "one" / TRAINED_ON_FILE).write_bytes(content)
        with pytest.raises(CheckpointError, match=expected):
            load_system(tmp_path / "one")


def test_other_spellings_of_trained_people_are_refused_with_their_number() -> None:
    trained_on = [TrainingSet.of(images_of(PEOPLE, name="mine"))]
    test = images_of(["jose nunez", "ANN LEE", "ann_lee", "Lebron James", "Cy_Fox"], name="pairs")
    with pytest.raises(OverlapError, match=r"^3 of the 4 people of 'pairs'.*mine.*--allow-training-overlap") as caught:
        check_training_overlap(trained_on, test)
    assert "fox" not in str(caught.value).lower() and "ann" not in str(caught.value).lower()
    allowed = check_training_overlap(trained_on, test, is_allowed=True)
    assert allowed == TrainingOverlap(status="allowed", num_shared=3, num_people=4)
    assert allowed.in_words("pairs") == "pairs: 3 of its 4 people"


def test_other_people_are_no_overlap() -> None:
    overlap = check_training_overlap([TrainingSet.of(images_of(PEOPLE))], images_of(["Cy_Fox", "synthetic-1/00002"]))
    assert overlap == TrainingOverlap(status="none", num_shared=0, num_people=2)


@pytest.mark.parametrize(
    ("trained", "tested", "where"),
    [(PEOPLE, ["lfw/12", "Cy_Fox"], "test: 1"), (["ms1m/1", "0000045"], PEOPLE, "train: 2")],
)
def test_people_with_numbers_cannot_be_compared(trained: list[str], tested: list[str], where: str) -> None:
    overlap = check_training_overlap([TrainingSet.of(images_of(trained, "train"))], images_of(tested, "test"))
    assert (overlap.status, overlap.num_shared) == ("unknown", None)
    assert overlap.unchecked == (f"{where} of its people have numbers instead of names",)
    assert "unknown" in overlap.in_words("test")


def test_equal_numbers_are_refused() -> None:
    with pytest.raises(OverlapError, match=r"1 of the 2 people.*Equal numbers"):
        check_training_overlap([TrainingSet.of(images_of(["0001", "0002"]))], images_of(["0002", "0003"]))


def test_fine_tuned_systems_carry_the_training_data_of_the_public_network() -> None:
    plain = system_of()
    public = PRETRAINED["mobilefacenet-y1"].card
    system = _system(plain.masker, plain.network, images_of(PEOPLE, "mine"), description="", pretrained=(public,))
    own, starting = system.trained_on
    assert own == TrainingSet.of(images_of(PEOPLE, "mine"))
    assert starting == TrainingSet(name="mobilefacenet-y1: MS1M (refined MS-Celeb-1M)")
    overlap = check_training_overlap(system.trained_on, images_of(["Cy_Fox"]))
    assert overlap.status == "unknown", "the people of MS1M are not known"
    assert overlap.unchecked == ("mobilefacenet-y1: MS1M (refined MS-Celeb-1M): its people are not listed",)
    both = check_training_overlap(system.trained_on, images_of(["Ann Lee"]), is_allowed=True)
    assert (both.status, both.num_shared) == ("allowed", 1) and both.unchecked == overlap.unchecked
