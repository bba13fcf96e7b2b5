"""What leaves the device as a file, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ppfr.core import ImageReadError, RangeError, ShapeError, StorageError
from ppfr.masking import Constant, Peep, PpfrFd, Unprotected, read_masked, visualise, write_masked

SECRET = bytes(range(32))


def masked(num: int = 2) -> torch.Tensor:
    image = torch.rand(num, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    return PpfrFd(secret=SECRET).mask(image, rng=torch.Generator())


def test_a_file_holds_half_precision_values_and_the_public_description(tmp_path: Path) -> None:
    masker, values, path = PpfrFd(secret=SECRET), masked(), tmp_path / "new" / "faces.safetensors"
    write_masked(path, values, masker, is_seeded=False)
    read = read_masked(path)
    assert torch.equal(read.values_BKPQ, values.half().float())
    assert (read.method, dict(read.config)) == ("ppfr-fd", dict(masker.public_config()))
    assert "redacted" in repr(read) and "tensor" not in repr(read)
    assert 2 * masker.spec.bytes_per_face < path.stat().st_size < 2 * masker.spec.bytes_per_face + 1000
    assert [entry.name for entry in path.parent.iterdir()] == ["faces.safetensors"]
    for form in (SECRET, SECRET.hex().encode()):
        assert form not in path.read_bytes()


def test_the_format_stays_readable(tmp_path: Path) -> None:
    """Version 1 as another program would write it."""
    path = tmp_path / "v1.safetensors"
    metadata = {"schema": "ppfr-masked/1", "method": "constant", "config": '{"out_shape": [1, 2, 2]}'}
    save_file({"masked": torch.ones(1, 1, 2, 2, dtype=torch.float16)}, path, metadata=metadata)
    with pytest.warns(UserWarning, match="unrecorded origin"):
        read = read_masked(path)
    assert (read.config, read.noise, read.privacy) == ({"out_shape": [1, 2, 2]}, "unrecorded", None)
    write_masked(path, torch.ones(1, 1, 2, 2), Constant(out_shape=(1, 2, 2)), is_seeded=False)
    with safe_open(path, framework="pt") as opened:
        assert sorted(opened.metadata()) == sorted({**metadata, "noise": "none"})
        assert json.loads(opened.metadata()["config"])["out_shape"] == [1, 2, 2]


def test_a_file_records_where_its_noise_came_from(tmp_path: Path) -> None:
    masker, path = Peep(num_components=3), tmp_path / "x.safetensors"
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    write_masked(path, masker.mask(image), masker, is_seeded=False)
    read = read_masked(path)
    assert read.noise == "system" and read.privacy == masker.guarantee()["in_words"]
    write_masked(path, masker.mask(image, rng=torch.Generator().manual_seed(1)), masker, is_seeded=True)
    with pytest.warns(UserWarning, match="found and removed"):
        read = read_masked(path)
    assert read.noise == "seeded" and "void: seeded noise" in str(read.privacy)
    write_masked(path, masked(), PpfrFd(secret=SECRET), is_seeded=True)
    assert read_masked(path).noise == "none"


def test_read_masked_rejects_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ImageReadError, match="does not exist"):
        read_masked(path)
    path.write_bytes(b"\x05garbage")
    with pytest.raises(ImageReadError, match="damaged"):
        read_masked(path)
    write_masked(path, masked(), PpfrFd(secret=SECRET), is_seeded=False)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ImageReadError, match="damaged"):
        read_masked(path)
    half = torch.ones(1, 1, 2, 2, dtype=torch.float16)
    for tensors, metadata, words in (
        ({"masked": half}, {"schema": "ppfr-masked/2"}, "schema 'ppfr-masked/2'"),
        ({"masked": half}, None, "schema None"),
        ({"masked": half}, {"schema": "ppfr-masked/1", "method": "x"}, "damaged"),
        ({"masked": half}, {"schema": "ppfr-masked/1", "method": "x", "config": "{"}, "damaged"),
        ({"other": half}, {"schema": "ppfr-masked/1", "method": "x", "config": "{}"}, "damaged"),
        ({"masked": half}, {"schema": "ppfr-masked/1", "method": "x", "config": "{}", "noise": "x"}, "kind of noise"),
        ({"masked": half.float()}, {"schema": "ppfr-masked/1", "method": "x", "config": "{}"}, "float16"),
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ImageReadError, match=words):
            read_masked(path)


def test_write_masked_rejects_other_shapes_and_values_beyond_float16(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ShapeError, match="masker that made it"):
        write_masked(path, masked(), Unprotected(), is_seeded=False)
    with pytest.raises(RangeError, match="65504"):
        write_masked(path, torch.full((1, 3, 112, 112), 1e6), Unprotected(), is_seeded=False)
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError):
        write_masked(tmp_path / "file" / "x.safetensors", masked(), PpfrFd(secret=SECRET), is_seeded=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_unprotected_face_is_shown_as_it_is() -> None:
    image = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0))
    shown = visualise(image)
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown, image.permute(1, 2, 0) * 255, atol=0.51)
    assert visualise(image[:, :, :56], side_px=224).shape == (224, 112, 3)


def test_channels_are_averaged_or_tiled() -> None:
    channels = torch.zeros(5, 4, 6)
    channels[0, 0, 0], channels[1, 3, 5] = -5.0, 5.0
    mean = visualise(channels, side_px=12)
    assert mean.shape == (8, 12, 3)
    assert (mean[0, 0] == 255).all() and (mean[-1, -1] == 255).all() and (mean[0, -1] == 0).all()
    grid = visualise(channels, layout="grid")
    assert grid.shape == (2 * 4 + 1, 3 * 6 + 2, 3)
    assert (grid[0, 0] == 0).all() and (grid[3, 7 + 5] == 255).all()
    assert (grid[1, 1] == 128).all(), "zero is mid-grey"
    assert (visualise(torch.full((2, 3, 3), 0.5)) == 128).all()


def test_visualise_rejects_invalid_arguments() -> None:
    with pytest.raises(ShapeError, match=r"masked\[0\]"):
        visualise(masked())
    with pytest.raises(RangeError, match="'mean' or 'grid'"):
        visualise(masked()[0], layout="row")  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="side_px"):
        visualise(masked()[0], side_px=0)
    with pytest.raises(RangeError, match="not finite"):
        visualise(torch.full((1, 2, 2), float("nan")))
