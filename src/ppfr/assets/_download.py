"""Checksummed download with progress and resume, on the standard library's HTTP client."""

from __future__ import annotations

import contextlib
import errno
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from ppfr.assets._assets import Asset, sha256_of, verify_asset
from ppfr.core import ChecksumError, MissingAssetError, StorageError

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0
_USER_AGENT = "ppfr (asset download)"
_RANGE_NOT_SATISFIABLE = 416

Advance = Callable[[int, int | None], None]
"""Called with (bytes on disk so far, bytes in all or None if the server does not say)."""


class _SourceError(Exception):
    """One source failed; `is_final` means that asking it again is pointless."""

    def __init__(self, reason: str, *, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(reason)


def fetch(
    asset: Asset,
    into: Path,
    *,
    progress: bool | Advance = False,
    attempts: int = 4,
    pause_s: float = 1.0,
    remedy: str = "Check the network, or fetch the file by hand, put it there, and run the command again.",
) -> Path:
    """Download an asset unless it is already there, and check its bytes.

    A broken transfer is taken up where it stopped, now and in a later call: the received part stays beside the target
    as `.NAME.part`. The target itself appears only whole and verified. A server without ranges is read from the start.

    Args:
        asset: what to get.
        into: directory; the file is `into / asset.name`. Made if absent.
        progress: True draws a bar on standard error; a callable receives (bytes so far, bytes in all or None).
        attempts: how often each source is asked before the next one.
        pause_s: pause before asking again; doubles each time.
        remedy: what the message advises if no source serves it.

    Raises:
        MissingAssetError: no source served it; says what each answered.
        ChecksumError: the bytes are not the ones known; nothing is kept.
        StorageError: the disk is full or `into` cannot be written; nothing half-written is kept.
    """
    target = Path(into) / asset.name
    if target.is_file():
        verify_asset(asset, target)
        return target
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _single_writer(part), _shown(asset, progress) as advance:
            _fetch_part(asset, part, advance, attempts=attempts, pause_s=pause_s, remedy=remedy)
            part.replace(target)
    except OSError as error:
        if isinstance(error, MissingAssetError):
            raise
        part.unlink(missing_ok=True)
        raise StorageError(
            f"could not write {target}: {error.strerror or error}; free space or choose another directory."
            " Nothing half-written was kept"
        ) from error
    verify_asset(asset, target)
    return target


def _fetch_part(asset: Asset, part: Path, advance: Advance, *, attempts: int, pause_s: float, remedy: str) -> None:
    """Fill `part` with verified bytes from the first source that serves them."""
    answers: list[str] = []
    mismatch: ChecksumError | None = None
    for url in asset.urls:
        for attempt in range(attempts):
            resumed_at = part.stat().st_size if part.is_file() else 0
            try:
                _receive(url, part, asset, advance)
            except _SourceError as error:
                answers.append(f"{url} ({error})")
                if error.is_final:
                    break
                if attempt + 1 < attempts:
                    time.sleep(pause_s * 2**attempt)
                continue
            found = sha256_of(part)
            if found == asset.sha256:
                return
            part.unlink()
            mismatch = ChecksumError(
                f"{url} served bytes with sha256 {found}, but {asset.name} is known as {asset.sha256}; the download was"
                " removed. The source changed or the connection is tampered with: do not use it; get the file elsewhere"
            )
            if resumed_at == 0:  # after a resume the old part may be to blame: ask once more from the start
                break
    if mismatch is not None:
        raise mismatch
    by_hand = f" {asset.note}" if asset.note else ""
    places = answers or ["no public source is known"]
    raise MissingAssetError(asset.name, looked_in=places, remedy=remedy + by_hand, sha256=asset.sha256)


def _receive(url: str, part: Path, asset: Asset, advance: Advance) -> None:
    """Append to `part` what the source serves from its end on, to the last byte."""
    start = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (Asset allows http and https only)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            continues = response.status == http.client.PARTIAL_CONTENT and _range_start(response) == start
            if start and not continues:
                start = 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            _refuse_if_too_large(asset, total, part, start)
            received = _copy(response, part, asset, advance, start=start, total=total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE and start:
            _settle_refused_range(part, asset)
            return
        is_final = error.code < http.client.INTERNAL_SERVER_ERROR and error.code != http.client.TOO_MANY_REQUESTS
        raise _SourceError(f"HTTP {error.code} {error.reason}", is_final=is_final) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _SourceError(f"{getattr(error, 'reason', error)}", is_final=False) from error
    if total is not None and received < total:
        raise _SourceError(f"the transfer stopped after {received} of {total} bytes", is_final=False)


def _settle_refused_range(part: Path, asset: Asset) -> None:
    """The server has nothing after our part: it is whole, or it is of another version and is dropped."""
    if sha256_of(part) != asset.sha256:
        part.unlink()
        raise _SourceError("the kept part does not belong to what is served", is_final=False)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """First byte of a `Content-Range: bytes 100-199/200`."""
    words = response.headers.get("Content-Range", "").replace("bytes", "").strip().split("-")
    return int(words[0]) if words[0].isdigit() else None


def _refuse_if_too_large(asset: Asset, total: int | None, part: Path, start: int) -> None:
    if total is None:
        return
    if asset.size_bytes is not None and total != asset.size_bytes:
        if start:
            part.unlink(missing_ok=True)
        raise _SourceError(f"serves {total} bytes where {asset.size_bytes} are known", is_final=not start)
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise OSError(errno.ENOSPC, f"{total - start} bytes are needed, {free} are free")


def _copy(
    response: http.client.HTTPResponse, part: Path, asset: Asset, advance: Advance, *, start: int, total: int | None
) -> int:
    """Write the body after the first `start` bytes of `part`; the number of bytes then in `part`."""
    limit = asset.size_bytes if asset.size_bytes is not None else total
    received = start
    with part.open("ab" if start else "wb") as file:
        advance(received, total)
        while chunk := _read(response):
            received += len(chunk)
            if limit is not None and received > limit:
                raise _SourceError(f"serves more than the {limit} bytes announced", is_final=True)
            file.write(chunk)
            advance(received, total)
    return received


def _read(response: http.client.HTTPResponse) -> bytes:
    """A piece of the body; a broken connection ends it early, which the caller sees from the count."""
    try:
        return response.read(_CHUNK_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial
    except (TimeoutError, ConnectionError) as error:
        raise _SourceError(f"the connection broke: {error}", is_final=False) from error


@contextlib.contextmanager
def _single_writer(part: Path) -> Iterator[None]:
    """Hold a lock beside `part`, so that two processes never append to the same file."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: the checksum still refuses a mixed file
        yield
        return
    lock = part.with_name(f"{part.name}.lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another process is downloading {part.name[1:-5]} here; wait for it to end") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _shown(asset: Asset, progress: bool | Advance) -> Iterator[Advance]:
    """Turn the `progress` argument into the callable that is told of each piece."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(asset.name, total=asset.size_bytes)
        yield lambda done, total: bar.update(task, completed=done, total=total or asset.size_bytes)
