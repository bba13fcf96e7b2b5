"""Files of hidden thresholds: their shares, permissions, and faults."""

from __future__ import annotations

import dataclasses
import json
import stat

import numpy as np
import pytest

from ppfr.core import InvalidInputError, ProblemsError, RangeError, StorageError
from ppfr.secure import FixedPoint
from ppfr.service import PartySettings, write_threshold_files, write_trial
from ppfr.service._parties._thresholds import named_threshold, read_thresholds

POINT = FixedPoint(dim=8, values="int8")


@pytest.fixture
def settings(tmp_path):
    """Settings of the three parties, without thresholds."""
    write_trial(tmp_path / "trial", dim=8, values="int8")
    return [PartySettings.read(tmp_path / "trial" / f"party-{party}.toml") for party in range(3)]


def listing(settings, *paths):
    return dataclasses.replace(settings, thresholds=tuple(paths))


@pytest.mark.parametrize("values", ["int8", "int16"])
@pytest.mark.parametrize("threshold", [-1.0, 0.4, 1.0])
def test_files_share_the_threshold(tmp_path, settings, values, threshold):
    point = FixedPoint(dim=8, values=values)
    paths = write_threshold_files(tmp_path / "new", name="door", threshold=threshold, fixed_point=point)
    assert [path.name for path in paths] == [f"party-{party}.door.threshold" for party in range(3)]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
    found = []
    for each, path in zip(settings, paths, strict=True):
        parameters = dataclasses.replace(each.parameters, fixed_point=point)
        found.append(read_thresholds(dataclasses.replace(listing(each, path), parameters=parameters))["door"])
    assert len({one.sharing for one in found}) == 1 and [one.party for one in found] == [0, 1, 2]
    total = np.array([sum(int(one.words_2[0]) for one in found) % (1 << point.ring_bits)])
    assert point.signed(total).tolist() == [point.integer_threshold(threshold)]
    for party in range(3):
        assert found[party].words_2[1] == found[(party + 1) % 3].words_2[0]


def test_files_of_several_thresholds_have_other_shares(tmp_path, settings):
    doors = write_threshold_files(tmp_path, name="door", threshold=0.4, fixed_point=POINT)
    gates = write_threshold_files(tmp_path, name="gate-2", threshold=0.4, fixed_point=POINT)
    thresholds = read_thresholds(listing(settings[1], gates[1], doors[1]))
    assert sorted(thresholds) == ["door", "gate-2"]
    assert thresholds["door"].sharing != thresholds["gate-2"].sharing
    assert named_threshold(thresholds, "door") is thresholds["door"]
    with pytest.raises(InvalidInputError, match=r"'window'.*door, gate-2.*`ppfr party thresholds`"):
        named_threshold(thresholds, "window")
    with pytest.raises(InvalidInputError, match=r"'door'.*none"):
        named_threshold(read_thresholds(settings[1]), "door")


def test_invalid_names_and_existing_files_are_refused(tmp_path):
    for name in ("", "0.4", "1e3", "nan", "inf", "infinity", "-0", "Door", "a/b", "..", "a.b", "x" * 64, "door\n", "ü"):
        with pytest.raises(InvalidInputError, match="name of a threshold"):
            write_threshold_files(tmp_path / "new", name=name, threshold=0.4, fixed_point=POINT)
    for threshold in (1.01, float("nan")):
        with pytest.raises(RangeError, match=str(threshold)):
            write_threshold_files(tmp_path / "new", name="door", threshold=threshold, fixed_point=POINT)
    assert not (tmp_path / "new").exists()
    (tmp_path / "party-2.door.threshold").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"party-2\.door\.threshold already exists"):
        write_threshold_files(tmp_path, name="door", threshold=0.4, fixed_point=POINT)
    assert [path.name for path in tmp_path.glob("*.threshold")] == ["party-2.door.threshold"]


def test_files_are_written_for_all_parties_or_for_none(tmp_path, monkeypatch):
    from ppfr.service._parties import _thresholds

    create = _thresholds.create_private

    def full_disk(path, content):
        if path.name.startswith("party-1"):
            raise StorageError("no space")
        create(path, content)

    monkeypatch.setattr(_thresholds, "create_private", full_disk)
    with pytest.raises(StorageError, match="no space"):
        write_threshold_files(tmp_path, name="door", threshold=0.4, fixed_point=POINT)
    assert not list(tmp_path.iterdir())


def test_problems_of_all_files_are_reported_together(tmp_path, settings):
    mine = write_threshold_files(tmp_path, name="door", threshold=0.4, fixed_point=POINT)
    wide = write_threshold_files(tmp_path, name="wide", threshold=0.4, fixed_point=FixedPoint(dim=8))
    twice = write_threshold_files(tmp_path / "other", name="door", threshold=0.5, fixed_point=POINT)
    absent = tmp_path / "party-1.absent.threshold"
    with pytest.raises(ProblemsError) as raised:
        read_thresholds(listing(settings[1], mine[1], mine[0], wide[1], twice[1], absent))
    problems = raised.value.problems
    assert [problem.partition(" ")[0].rstrip(":") for problem in problems] == [
        str(path) for path in (mine[0], wide[1], twice[1], absent)
    ]
    for problem, expected in zip(problems, ("party 0", "'int16'", "'door'", "does not exist"), strict=True):
        assert expected in problem
    mine[1].chmod(0o644)
    with pytest.raises(StorageError, match="0644"):
        read_thresholds(listing(settings[1], mine[1]))


def test_damaged_files_are_refused_and_their_shares_not_shown(tmp_path, settings):
    (path, *_) = write_threshold_files(tmp_path, name="door", threshold=0.4, fixed_point=POINT)
    content = path.read_bytes()
    fields = json.loads(content)
    changed = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in range(len(content))]
    for key in fields:
        changed.append(json.dumps({name: value for name, value in fields.items() if name != key}).encode())
    more = ({"version": 2}, {"words": [1, -1]}, {"words": [1, 1 << 40]}, {"words": [1]}, {"party": True}, {"extra": 1})
    changed += [json.dumps(fields | change).encode() for change in more]
    changed += [b"", b"[]", b"\xff", content[:-30]]
    num_refused = 0
    for damaged in changed:
        path.write_bytes(damaged)
        try:
            found = read_thresholds(listing(settings[0], path))["door"]
        except ProblemsError as error:
            num_refused += 1
            assert str(path) in str(error) and str(fields["words"][0]) not in str(error)
            assert error.__cause__ is None is error.__context__
        else:  # white space between the fields
            assert found.words_2.tolist() == fields["words"]
    assert num_refused > len(changed) * 0.8
