"""Assets by name and checksum, data and weights directories, atomic writing."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from ppfr.assets import (
    Asset,
    check_private,
    create_private,
    data_root,
    find_asset,
    sha256_of,
    verify_asset,
    weights_root,
    write_atomically,
)
from ppfr.core import ChecksumError, InvalidInputError, MissingAssetError, MissingWeightsError, StorageError

CONTENT = b"weights of a network" * 999


def asset_of(content: bytes = CONTENT, **changes: object) -> Asset:
    return Asset(**{"name": "net.bin", "sha256": hashlib.sha256(content).hexdigest(), **changes})


def test_find_asset_returns_the_first_directory_with_the_file(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for directory in (second, third):
        directory.mkdir()
        (directory / "net.bin").write_bytes(CONTENT)
    assert find_asset(asset_of(), [first, second, third], remedy="") == second / "net.bin"


def test_missing_asset_error_contains_checksum_directories_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        find_asset(asset_of(), [tmp_path / "x", tmp_path / "y"], remedy="Run `ppfr fetch`.", error=MissingWeightsError)
    text = str(caught.value)
    for part in ("net.bin", asset_of().sha256, str(tmp_path / "x"), str(tmp_path / "y"), "Run `ppfr fetch`."):
        assert part in text
    by_hand = asset_of(note="Ask its authors.")
    with pytest.raises(MissingAssetError, match="Ask its authors"):
        find_asset(by_hand, [], remedy="By hand.")


def test_changed_file_is_refused_even_if_it_was_verified_before(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT)
    verify_asset(asset_of(), path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(ChecksumError, match="Remove it and download it again"):
        find_asset(asset_of(), [tmp_path], remedy="")


def test_verification_is_cached_until_requested_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.bin"
    path.write_bytes(CONTENT)
    reads: list[Path] = []
    monkeypatch.setattr("ppfr.assets._assets.sha256_of", lambda file: reads.append(file) or sha256_of(file))
    for _ in range(3):
        find_asset(asset_of(), [tmp_path], remedy="")
    assert len(reads) == 1
    find_asset(asset_of(), [tmp_path], remedy="", verify_again=True)
    assert len(reads) == 2
    with pytest.raises(ChecksumError):  # another asset under the same path is not what was verified
        verify_asset(asset_of(b"other"), path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "ABC"}, "64 lower-case"),
        ({"name": "../net.bin"}, "relative path"),
        ({"name": "/net.bin"}, "relative path"),
        ({"urls": ("file:///etc/passwd",)}, "http and https"),
    ],
)
def test_unsafe_assets_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        asset_of(**changes)


@pytest.mark.parametrize(
    ("root", "variable", "flag"), [(data_root, "PPFR_DATA", "--data"), (weights_root, "PPFR_WEIGHTS", "--weights")]
)
def test_option_overrides_environment_and_error_names_both(
    root: object, variable: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, environment = tmp_path / "option", tmp_path / "environment"
    option.mkdir()
    environment.mkdir()
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingAssetError) as caught:
        root(None)
    assert variable in str(caught.value)
    assert flag in str(caught.value)
    monkeypatch.setenv(variable, str(environment))
    assert root(None) == environment
    assert root(option) == option
    with pytest.raises(MissingAssetError, match=r"no such directory"):
        root(tmp_path / "nowhere")


def test_write_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "result.json"
    with write_atomically(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(RuntimeError, match="stop"), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "whole"
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_write_flushes_the_file_and_then_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "sub" / "result.json"
    flushed: list[str] = []
    real = os.fsync

    def recorded(handle: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    with write_atomically(path) as temporary:
        temporary.write_text("whole")
    folders = [str(folder) for folder in (path.parent.parent, tmp_path)]  # of the two new directories
    assert flushed == [*folders, str(temporary), str(path.parent)]


def test_private_files_are_never_replaced_and_only_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    create_private(path, b"first")
    with pytest.raises(InvalidInputError, match="already exists"):
        create_private(path, b"second")
    with pytest.raises(StorageError, match="Could not write"):
        create_private(path / "below", b"third")
    assert path.read_bytes() == b"first" and [file.name for file in path.parent.iterdir()] == ["secret"]
    check_private(path, "secret")
    path.chmod(0o640)
    with pytest.raises(StorageError, match=f"mode 0640.*chmod 600 {path}"):
        check_private(path, "secret")


def test_full_disk_is_a_storage_error_and_missing_input_is_not(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(StorageError, match="Free space"), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(MissingAssetError, match="net"), write_atomically(path):
        raise MissingAssetError("net", looked_in=[], remedy="")
    assert list(tmp_path.iterdir()) == []
