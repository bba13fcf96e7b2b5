"""`ppfr.assets.extract_tar` on valid, damaged, oversized and malicious archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ppfr.assets import extract_tar
from ppfr.core import DatasetError, PpfrError, ProblemsError, StorageError


def write_tar(
    path: Path, members: dict[str, bytes], *, links: dict[str, str] | None = None, mode: str = "w:gz"
) -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)


def test_extracts_files_and_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tgz", {"set/x/1.jpg": b"one", "set/y/2.jpg": b"two"})
    extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    assert (tmp_path / "out/set/x/1.jpg").read_bytes() == b"one"
    assert (tmp_path / "out/set/y/2.jpg").read_bytes() == b"two"
    with pytest.raises(StorageError, match="exists"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "out")


def test_members_outside_the_folder_are_listed_and_nothing_is_extracted(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "bad.tgz",
        {"ok.jpg": b"1", "../escape": b"2", "/etc/passwd": b"3", "a/../../b": b"4", "c:\\x": b"5"},
        links={"link": "/etc"},
    )
    with pytest.raises(ProblemsError) as caught:
        extract_tar(tmp_path / "bad.tgz", tmp_path / "inner" / "out")
    assert len(caught.value.problems) == 5
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bad.tgz", "inner"]


def test_permissions_and_times_are_not_taken_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.mode, info.mtime = 0o4777, 0
        tar.addfile(info)
    extract_tar(tmp_path / "a.tar", tmp_path / "out")
    facts = (tmp_path / "out" / "a.jpg").stat()
    assert facts.st_mode & 0o7111 == 0
    assert facts.st_mtime > 0


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_truncated_archives_leave_no_output(cut: float, tmp_path: Path) -> None:
    import os

    write_tar(tmp_path / "a.tgz", {f"{number}.jpg": os.urandom(20_000) for number in range(5)})
    whole = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DatasetError, match="Download it again"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_oversized_archives_and_other_files_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "bomb.tgz", {"zeros": bytes(2_000_000)})
    with pytest.raises(DatasetError, match="more than 1000000 bytes"):
        extract_tar(tmp_path / "bomb.tgz", tmp_path / "out", max_bytes=1_000_000)
    (tmp_path / "text").write_text("not an archive")
    with pytest.raises(DatasetError, match="not a tar archive"):
        extract_tar(tmp_path / "text", tmp_path / "out")
    with pytest.raises(PpfrError):
        extract_tar(tmp_path / "absent.tgz", tmp_path / "out")


def test_full_disk_leaves_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_tar(tmp_path / "a.tgz", {"a.jpg": b"x"})
    monkeypatch.setattr("ppfr.assets._archives.tarfile.copyfileobj", full)
    with pytest.raises(StorageError, match="Free space"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]
