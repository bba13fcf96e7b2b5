"""Download against a server on the loopback interface that misbehaves in every way we recover from or report."""

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
    """What is served: one reply a request in turn, then whole files with ranges."""

    url: str
    replies: deque[Reply] = field(default_factory=deque)
    ranges: list[str | None] = field(default_factory=list)


def whole(handler: http.server.BaseHTTPRequestHandler, content: bytes = CONTENT, *, sent: int | None = None) -> None:
    """The content from the asked byte on; `sent` breaks the connection after so many bytes."""
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
            """A client that hangs up on what it refuses is part of the test, not news."""

    with QuietServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}/net.bin"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        listening.shutdown()
        thread.join(5)


def asset_at(*urls: str, content: bytes = CONTENT, **changes: object) -> Asset:
    return Asset(name="net.bin", sha256=hashlib.sha256(content).hexdigest(), urls=urls, **changes)


def get(asset: Asset, into: Path, **options: object) -> Path:
    return fetch(asset, into, pause_s=0.0, **options)


def test_fetches_verifies_reports_progress_and_asks_once(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = get(asset_at(server.url), tmp_path / "new", progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert get(asset_at(server.url), tmp_path / "new") == path
    assert len(server.ranges) == 1
    assert [file.name for file in path.parent.iterdir()] == ["net.bin"]


def test_a_bar_is_drawn_on_standard_error(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get(asset_at(server.url), tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "net.bin" in err


def test_a_broken_transfer_is_taken_up_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.replies.extend([lambda h: whole(h, sent=300_000), lambda h: whole(h, sent=100_000)])
    assert get(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=400000-"]


def test_a_later_call_takes_up_what_an_earlier_one_kept(server: Server, tmp_path: Path) -> None:
    server.replies.extend([lambda h: whole(h, sent=250_000)])
    with pytest.raises(MissingAssetError, match="stopped after 250000 of 700001"):
        get(asset_at(server.url), tmp_path, attempts=1)
    assert not (tmp_path / "net.bin").exists()
    assert get(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=250000-"]


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(CONTENT[:1000])
    server.replies.append(without_ranges)
    assert get(asset_at(server.url), tmp_path).read_bytes() == CONTENT


def test_a_part_of_another_version_is_dropped_and_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(b"other bytes")
    assert get(asset_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=11-", None]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".net.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))  # the server answers 416
    assert get(asset_at(server.url), tmp_path / "b").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".net.bin.part").write_bytes(CONTENT)
    assert get(asset_at(server.url), tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="do not use it"):
        get(asset_at(server.url, content=b"what was promised"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_goes_to_the_next_source_at_once(server: Server, tmp_path: Path) -> None:
    server.replies.append(status(404))
    assert get(asset_at(server.url, server.url + "?mirror"), tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_no_source_says_what_each_answered(server: Server, tmp_path: Path) -> None:
    server.replies.extend([status(404), status(503), status(503)])
    asset = asset_at(server.url, server.url + "?b", note="Ask its authors.")
    with pytest.raises(MissingAssetError) as caught:
        get(asset, tmp_path, attempts=2)
    text = str(caught.value)
    for part in ("HTTP 404", "HTTP 503", asset.sha256, "Ask its authors.", "by hand"):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_nothing_listens(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="refused"):
        get(asset_at("http://127.0.0.1:9/net.bin"), tmp_path, attempts=1)
    with pytest.raises(MissingAssetError, match="no public source"):
        get(asset_at(), tmp_path)


def test_a_source_of_another_size_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="serves 700001 bytes where 5 are known"):
        get(asset_at(server.url, size_bytes=5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No space left.*free space"):
        get(asset_at(server.url), tmp_path, progress=lambda done, _: full_disk() if done else None)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("ppfr.assets._download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="700001 bytes are needed"):
        get(asset_at(server.url), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".net.bin.part.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process"):
            get(asset_at(server.url), tmp_path)
