"""Where archives come from: the package index, mirrors and folders that pip was told to use."""

import ast
import contextlib
import logging
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mslearn.home import home

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

CONNECT_SECONDS, READ_SECONDS, FIND_SECONDS = 4.0, 15.0, 15.0


class FetchError(OSError):
    """A text could not be had, or is not the one that was asked for. Says so in one sentence."""


@dataclass(frozen=True)
class Archive:
    """One file of one release on a package index, pinned to its content.

    `n_bytes` is its size; `filename` is also the name of the verified copy in the learner's folder.
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
    """What pip was told: `places` are (kind, address) pairs, kind "index" or "find-links"."""

    places: tuple[tuple[str, str], ...]
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    proxy: str | None = None


def pip_options() -> dict[str, str]:
    """pip's options from its files and the environment, the most specific setting winning.

    Asks `pip config list`, so that every platform's configuration files count; where the
    environment has no pip (uv's, for instance) the `PIP_…` variables alone speak.
    """
    environment = {
        name[4:].lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("PIP_")
    }
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return environment
    sections: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        with contextlib.suppress(ValueError, SyntaxError):
            sections.setdefault(section, {})[option] = str(ast.literal_eval(value))
    ordered = (sections.get(name, {}) for name in ("global", "install", "download"))
    return {name: value for each in (*ordered, environment) for name, value in each.items()}


def pip_settings() -> Settings:
    """The places, certificates and proxy that pip would use; what is on this machine comes first.

    Without any setting that is the public index, whose address `unearth` knows.
    """
    options = pip_options()

    def words(name: str) -> tuple[str, ...]:
        return tuple(options.get(name, "").split())

    indexes = (*(words("index-url") or (_public_index(),)), *words("extra-index-url"))
    if options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = ()
    links = [link for link in words("find-links") if "://" in link or Path(link).exists()]
    places = [("find-links", url) for url in links] + [("index", url) for url in indexes]
    places.sort(key=lambda place: urlsplit(place[1]).scheme in ("http", "https"))
    cert, proxy = options.get("cert") or None, options.get("proxy") or None
    return Settings(tuple(places), words("trusted-host"), cert, proxy)


def _public_index() -> str:
    from unearth import PackageFinder

    return PackageFinder().sources[0]["url"]


def session(settings: Settings) -> "PyPIClient":
    """An HTTP client with pip's certificates, proxy and credentials, and short time-outs."""
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers.sync import PyPIClient

    logging.getLogger("unearth").addHandler(logging.NullHandler())  # our own sentence is enough
    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=_certificates(settings.cert) if settings.cert else True,
        proxy=settings.proxy,
        timeout=(CONNECT_SECONDS, READ_SECONDS, READ_SECONDS, READ_SECONDS),
        follow_redirects=True,
    )
    indexes = [url for kind, url in settings.places if kind == "index"]
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    return client


def _certificates(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        fault = error.strerror or reason(error)
        raise FetchError(f"the certificates pip is told to use, {path}, fail: {fault}") from error


def links(archive: Archive, place: tuple[str, str], client: "PyPIClient") -> list["Link"]:
    """The links that one place has to the very file: nothing is chosen for us, built or run.

    Raises FetchError when the place does not answer or does not offer the file.
    """
    from unearth import PackageFinder

    kind, url = place
    where = {"index_urls": [url]} if kind == "index" else {"find_links": [url]}
    finder = PackageFinder(client, ignore_compatibility=True, **where)

    def find() -> list["Link"]:
        wanted = f"{archive.package}=={archive.version}"
        found = finder.find_matches(wanted, allow_yanked=True, allow_prereleases=True)
        return [each.link for each in found if each.link.filename == archive.filename]

    try:
        found = within(FIND_SECONDS, find)
    except Exception as error:  # what an index, a proxy or a login page answers has no end
        raise unreachable(url, error) from error
    if not found:
        raise FetchError(f"{host(url)} does not offer {archive.filename}")
    return found


def unreachable(url: str, error: Exception) -> FetchError:
    """The sentence for a place that gave no usable answer."""
    return FetchError(f"no answer from {host(url)} ({reason(error)})")


def reason(error: Exception) -> str:
    """Another library's error on one line, not too long, without a password in an address."""
    line = re.sub(r"//[^/\s@]*@", "//", " ".join(str(error).split()))
    return line[:160] or type(error).__name__


def host(url: str) -> str:
    """The part of an address that may be shown: no user name, no password."""
    return urlsplit(url).hostname or url


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """The result of `work`, or TimeoutError when it takes longer.

    The time-outs of a name look-up and of a host's many addresses add up; a reader should not
    wait for all of them. The thread is a daemon: it cannot hold up the end of the program.
    """
    results: list[Any] = []

    def attempt() -> None:
        try:
            results.append((work(), None))
        except Exception as error:
            results.append((None, error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError(f"nothing within {seconds:g} s")
    result, error = results[0]
    if error:
        raise error
    return result
