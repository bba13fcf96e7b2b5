"""Checksummed download with retries and resume, by pooch."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import filelock

from ppfr.assets._assets import Asset, verify_asset
from ppfr.core import ChecksumError, MissingAssetError, PpfrError, StorageError

if TYPE_CHECKING:
    import requests

_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 30.0
_USER_AGENT = "ppfr (asset download)"
_OK, _PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS, _SERVER_ERROR = 200, 206, 416, 429, 500


class _FinalSourceError(Exception):
    """A source cannot serve the asset, and another attempt would give the same answer."""


class _WrongBytesError(Exception):
    """A complete transfer had another checksum, so that another attempt is pointless."""


def fetch(
    asset: Asset,
    into: Path,
    *,
    progress: bool = False,
    attempts: int = 4,
    remedy: str = "Check the network, or download the file by hand, put it there, and run the command again.",
) -> Path:
    """Download an asset unless it is already there, and check its bytes.

    An interrupted transfer is resumed, in this call and in later calls: the received part stays beside the target as
    `.NAME.part`. The target appears only when it is complete and verified. If the server does not support ranges, the
    transfer starts again.

    Args:
        asset: what to download.
        into: directory; the file is `into / asset.name`. Created if absent.
        progress: draw a progress bar on standard error.
        attempts: number of attempts per source, with pauses of 1, 2, 3, ... seconds between them.
        remedy: advice in the error message if no source serves the asset.

    Raises:
        MissingAssetError: no source served the asset; the message lists the answer of each source.
        ChecksumError: the bytes differ from the known ones; nothing is kept.
        StorageError: the disk is full, `into` is not writable, or another process downloads the same file. A part
            that could not be written is removed.
    """
    target = Path(into) / asset.name
    if target.is_file():
        verify_asset(asset, target)
        return target
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _single_writer(part):
            _fetch_from_sources(asset, target, part, progress=progress, attempts=attempts, remedy=remedy)
    except OSError as error:
        if isinstance(error, PpfrError):
            raise
        part.unlink(missing_ok=True)
        raise StorageError(
            f"Could not write {target}: {error.strerror or error}. Free space or choose another directory."
            " No partial file was kept."
        ) from error
    verify_asset(asset, target)
    return target


def _fetch_from_sources(asset: Asset, target: Path, part: Path, *, progress: bool, attempts: int, remedy: str) -> None:
    """Place the verified file at `target` from the first source that serves it."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # its messages repeat ours on standard error
    answers: list[str] = []
    mismatch: ChecksumError | None = None
    for url in asset.urls:
        source = pooch.create(
            path=target.parent,
            base_url="",
            registry={target.name: asset.sha256},
            urls={target.name: url},
            retry_if_failed=attempts - 1,
        )
        try:
            source.fetch(target.name, downloader=_ResumingDownloader(asset, part, progress=progress))
            return
        except (_FinalSourceError, requests.exceptions.RequestException) as error:
            answers.append(f"{url} ({_reason(error)})")
        except (_WrongBytesError, ValueError) as error:  # a ValueError is pooch's, at the last attempt
            mismatch = ChecksumError(
                f"{url} served bytes whose sha256 is not that of {asset.name}, {asset.sha256}. The download was"
                " removed. The source changed or the connection is not trustworthy: do not use it; get the file from"
                " another source."
            )
            mismatch.__cause__ = error
    if mismatch is not None:
        raise mismatch
    by_hand = f" {asset.note}" if asset.note else ""
    places = answers or ["no public source is known"]
    raise MissingAssetError(asset.name, looked_in=places, remedy=remedy + by_hand, sha256=asset.sha256)


def _reason(error: Exception) -> str:
    """What went wrong at a source, in a few words."""
    if isinstance(error, _FinalSourceError):
        return str(error)
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    while error.__context__ is not None:  # requests wraps urllib3, which wraps the operating system's error
        error = error.__context__  # type: ignore[assignment]
    return str(error)


class _ResumingDownloader:
    """A pooch downloader that appends to a part file, which a later attempt continues.

    pooch calls it once per attempt with a temporary path. It retries after a `RequestException` or a wrong checksum.
    """

    def __init__(self, asset: Asset, part: Path, *, progress: bool) -> None:
        self._asset, self._part, self._progress = asset, part, progress
        self._served_wrong_bytes = False

    def __call__(self, url: str, output_file: str, source: Any) -> None:
        import requests
        from pooch import HTTPDownloader

        if self._served_wrong_bytes:
            raise _WrongBytesError
        start = self._part.stat().st_size if self._part.is_file() else 0
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with self._part.open("ab") as file, self._bar() as bar:
                body = _Body(file, self._asset, start)
                download = HTTPDownloader(
                    progressbar=bar,
                    chunk_size=_CHUNK_BYTES,
                    timeout=_TIMEOUT_S,
                    headers=headers,
                    hooks={"response": body.begin},
                )
                download(url, body, source)
        except requests.exceptions.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            if code == _RANGE_NOT_SATISFIABLE and start:
                # The part is complete, or it belongs to other bytes; pooch compares checksums and retries.
                self._part.replace(output_file)
                return
            self._drop_empty_part()
            if code < _SERVER_ERROR and code != _TOO_MANY_REQUESTS:
                raise _FinalSourceError(_reason(error)) from error
            raise
        except BaseException:
            self._drop_empty_part()
            raise
        self._served_wrong_bytes = body.start == 0  # true if pooch calls again; a resumed part may be of another file
        self._part.replace(output_file)

    def _drop_empty_part(self) -> None:
        if self._part.is_file() and not self._part.stat().st_size:
            self._part.unlink()

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Any]:
        if not self._progress:
            yield False
            return
        from tqdm import tqdm

        total = self._asset.size_bytes or _CHUNK_BYTES  # until the server states it
        with tqdm(desc=self._asset.name, total=total, unit="B", unit_scale=True, ncols=79) as bar:
            yield bar


class _Body:
    """The part file while a response is written to it; refuses responses of a wrong size before and while writing."""

    def __init__(self, file: BinaryIO, asset: Asset, start: int) -> None:
        self._file, self._asset, self.start = file, asset, start

    def begin(self, response: requests.Response, **_: object) -> None:
        """Prepare for a response: check its size, and start from the beginning if it does not continue the part."""
        import requests

        if response.status_code not in {_OK, _PARTIAL_CONTENT}:
            return
        if self.start and not (response.status_code == _PARTIAL_CONTENT and _range_start(response) == self.start):
            self._file.truncate(0)
            self.start = 0
        length = response.headers.get("Content-Length", "")
        if not length.isdigit():
            return
        total = self.start + int(length)
        if self._asset.size_bytes is not None and total != self._asset.size_bytes:
            reason = f"serves {total} bytes instead of {self._asset.size_bytes}"
            if self.start:  # the part may be the reason
                self._file.truncate(0)
                raise requests.exceptions.ContentDecodingError(reason)
            raise _FinalSourceError(reason)
        free = shutil.disk_usage(Path(self._file.name).parent).free
        if int(length) > free:
            raise OSError(errno.ENOSPC, f"{length} bytes are needed, {free} are free")

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        limit = self._asset.size_bytes
        if limit is not None and self._file.tell() + len(chunk) > limit:
            raise _FinalSourceError(f"serves more than {limit} bytes")
        self._file.write(chunk)

    def flush(self) -> None:
        """Write buffered bytes to the file."""
        self._file.flush()


def _range_start(response: requests.Response) -> int | None:
    """First byte of a `Content-Range: bytes 100-199/200`."""
    first = response.headers.get("Content-Range", "").replace("bytes", "").strip().split("-")[0]
    return int(first) if first.isdigit() else None


@contextlib.contextmanager
def _single_writer(part: Path) -> Iterator[None]:
    """Hold a lock beside `part`, so that two processes never append to the same file."""
    lock = part.with_name(f"{part.name}.lock")
    try:
        with filelock.FileLock(lock, timeout=0):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise StorageError(
            f"Another process is downloading {part.name[1:-5]} to {part.parent}. Wait for it to end."
        ) from error
