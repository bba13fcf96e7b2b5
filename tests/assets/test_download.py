"""`ppfr.assets.fetch` against a local server that fails in every way that is handled or reported."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ppfr.assets import Asset, fetch
from ppfr.core import ChecksumError, MissingAssetError, StorageError

CONTENT = os.urandom(700_001)
Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """The replies to come, one per request, then whole files; and the ranges requested so far."""

    url: str
    replies: deque[Reply] = field(default_factory=deque)
    ranges: list[str | None] = field(default_factory=list)


def whole(handler: http.server.BaseHTTPRequestHandler, content: bytes = CONTENT, *, sent: int | None = None) -> None:
    """Send the content from the requested byte on; `sent` breaks the connection after that many bytes."""
    asked = handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if asked and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if asked else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    if asked:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[start:] if sent is None else content[start : start + sent])
    handler.close_connection = True


def without_ranges(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


def without_length(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENT)
    handler.close_connection = True


def status(code: int) -> Reply:
    def reply(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            (state.replies.popleft() if state.replies else whole)(self)

        def log_message(self, *_: object) -> None:
            pass

    class QuietServer(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore clients that close the connection: some tests expect it."""

    with QuietServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}/net.bin"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        listening.shutdown()
        thread.join(5)


def asset_at(*urls: str, content: bytes = CONTENT, **changes: object) -> Asset:
    return Asset(name="net.bin", sha256=hashlib.sha256(content).hexdigest(), urls=urls, **changes)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)


def test_fetch_verifies_and_requests_once(server: Server, tmp_path: Path) -> None:
    path = fetch(asset_at(server.url), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert fetch(asset_at(server.url), tmp_path / "new") == path
    assert len(server.ranges) == 1
    assert [file.name for file in path.parent.iterdir()] == ["net.bin"]


def test_progress_bar_is_drawn_on_standard_error(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(asset_at(server.url), tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "net.bin: 100%" in err
    assert "700k/700k" in err


def test_fetch_without_progress_prints_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies.append(lambda h: whole(h, sent=300_000))
    fetch(asset_at(server.url), tmp_path)
    assert capsys.readouterr() == ("", "")


def resumed_at(server: Server) -> list[int]:
    """First byte of every request but the first; each lies at most one chunk before the point of the interruption."""
    first, *later = server.ranges
    assert first is None
    return [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in later if asked is not None]


def test_broken_transfer_is_resumed(server: Server, tmp_path: Path) -> None:
    server.replies.extend([lambda h: whole(h, sent=300_000), lambda h: whole(h, sent=100_000)])
    assert fetch(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    second, third = resumed_at(server)
    assert 300_000 - 65_536 < second <= 300_000
    assert second < third <= second + 100_000


def test_later_call_resumes_an_earlier_one(server: Server, tmp_path: Path) -> None:
    server.replies.extend([lambda h: whole(h, sent=250_000)])
    with pytest.raises(MissingAssetError, match="250000 bytes read"):
        fetch(asset_at(server.url), tmp_path, attempts=1)
    assert not (tmp_path / "net.bin").exists()
    assert fetch(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    (second,) = resumed_at(server)
    assert 250_000 - 65_536 < second <= 250_000


def test_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(CONTENT[:1000])
    server.replies.append(without_ranges)
    assert fetch(asset_at(server.url), tmp_path).read_bytes() == CONTENT


def test_part_of_another_version_is_discarded(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(b"other bytes")
    assert fetch(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=11-", None]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".net.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))  # the server answers 416
    assert fetch(asset_at(server.url), tmp_path / "b").read_bytes() == CONTENT


def test_complete_part_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(CONTENT)
    assert fetch(asset_at(server.url), tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_not_requested_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="do not use it"):
        fetch(asset_at(server.url, content=b"expected"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(server.ranges) == 1


def test_body_longer_than_the_known_size_is_stopped(server: Server, tmp_path: Path) -> None:
    server.replies.append(without_length)
    with pytest.raises(MissingAssetError, match="serves more than 5 bytes"):
        fetch(asset_at(server.url, size_bytes=5), tmp_path)
    assert not (tmp_path / "net.bin").exists()


def test_missing_file_is_requested_from_the_next_source_at_once(server: Server, tmp_path: Path) -> None:
    server.replies.append(status(404))
    assert fetch(asset_at(server.url, server.url + "?mirror"), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_error_lists_the_answer_of_every_source(server: Server, tmp_path: Path) -> None:
    server.replies.extend([status(404), status(503), status(503)])
    asset = asset_at(server.url, server.url + "?b", note="Ask its authors.")
    with pytest.raises(MissingAssetError) as caught:
        fetch(asset, tmp_path, attempts=2)
    text = str(caught.value)
    for part in ("HTTP 404", "HTTP 503", asset.sha256, "Ask its authors.", "by hand"):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_error_names_a_refused_connection(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="refused"):
        fetch(asset_at("http://127.0.0.1:9/net.bin"), tmp_path, attempts=1)
    with pytest.raises(MissingAssetError, match="no public source"):
        fetch(asset_at(), tmp_path)


def test_source_of_another_size_is_refused_before_reading(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="serves 700001 bytes instead of 5"):
        fetch(asset_at(server.url, size_bytes=5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_leaves_no_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppfr.assets._download._Body.write", full_disk)
    with pytest.raises(StorageError, match=r"No space left.*Free space"):
        fetch(asset_at(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_detected_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("ppfr.assets._download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="700001 bytes are needed"):
        fetch(asset_at(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_the_same_file(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".net.bin.part.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="Another process"):
            fetch(asset_at(server.url), tmp_path)
