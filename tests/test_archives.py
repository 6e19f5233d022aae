"""What pip was told is heeded, and one file of an archive is read with nothing else touched."""

import os
import tarfile
from urllib.parse import urlsplit

import pytest
from fables import TEXT, tarball

from mslearn import fetch, index
from mslearn.index import FetchError, Settings, pip_settings


@pytest.fixture
def no_index():
    """Here what pip was told is what is tested."""


class TestMembers:
    def member(self, tmp_path, content, name):
        path = tmp_path / "a.tar.gz"
        path.write_bytes(content)
        return fetch.member(path, name)

    def test_an_archive_within_an_archive(self, tmp_path):
        inner = tarball({"snippets/movies.txt": TEXT})
        content = tarball({"fable-1/extra/inner.tar.gz": inner})
        assert self.member(tmp_path, content, "extra/inner.tar.gz!movies.txt") == TEXT

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
    def test_a_link_in_the_place_of_the_file_is_not_followed(self, tmp_path, kind):
        secret = tmp_path / "secret"
        secret.write_text("secret")
        entry = tarfile.TarInfo("fable-1/fox.txt")
        entry.type, entry.linkname = kind, str(secret)
        with pytest.raises(FetchError, match=r"a\.tar\.gz holds no fox\.txt"):
            self.member(tmp_path, tarball({"fox": entry}), "fox.txt")

    def test_names_that_climb_out_write_nothing(self, tmp_path):
        files = {"../../evil.txt": b"x", str(tmp_path / "evil2.txt"): b"x", "f-1/fox.txt": TEXT}
        folder = tmp_path / "deep" / "deeper"
        folder.mkdir(parents=True)
        assert self.member(folder, tarball(files), "fox.txt") == TEXT
        assert not list(tmp_path.rglob("evil*"))

    def test_damage_inside_is_named(self, tmp_path):
        with pytest.raises(FetchError, match=r"a\.tar\.gz is damaged .*: remove .* and fetch"):
            self.member(tmp_path, tarball({"f-1/fox.txt": TEXT})[:-40], "fox.txt")
        with pytest.raises(FetchError, match="is damaged"):
            self.member(tmp_path, b"not an archive", "fox.txt")


class TestPipSettings:
    def test_files_and_environment_count_as_they_do_for_pip(self, tmp_path, monkeypatch):
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        (tmp_path / "pip.conf").write_text(
            "[global]\nindex-url = https://mirror.example/index\n"
            "extra-index-url =\n    https://a.example/index\n    https://b.example/index\n"
            f"find-links = {wheels} {tmp_path / 'gone'}\ncert = ca.pem\n"
            "[install]\ntrusted-host = mirror.example\n"
        )
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        monkeypatch.setenv("PIP_CERT", "other.pem")
        settings = pip_settings()
        hosts = [urlsplit(url).hostname for kind, url in settings.places if kind == "index"]
        assert hosts[-3:] == ["mirror.example", "a.example", "b.example"]
        assert ("find-links", str(wheels)) in settings.places
        assert not [url for _, url in settings.places if "gone" in url]
        assert settings.cert == "other.pem" and settings.trusted_hosts == ("mirror.example",)

    def test_without_settings_it_is_the_public_index(self, monkeypatch):
        monkeypatch.setattr(index, "pip_options", dict)
        assert [kind for kind, _ in pip_settings().places] == ["index"]
        assert pip_settings().places[0][1].startswith("https://")

    def test_without_pip_the_environment_speaks(self, monkeypatch):
        def no_pip(*_, **__):
            raise OSError("no such file")

        monkeypatch.setattr(index.subprocess, "run", no_pip)
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/index")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        monkeypatch.setenv("PIP_PROXY", "http://proxy.example:3128")
        settings = pip_settings()
        assert settings.places == (("index", "https://mirror.example/index"),)
        assert settings.proxy == "http://proxy.example:3128"

    def test_a_certificate_that_is_not_there_is_said(self, monkeypatch):
        with pytest.raises(FetchError, match=r"certificates .* nowhere\.pem, .* No such file"):
            index.session(Settings((), cert="nowhere.pem"))


def test_no_password_in_an_address_is_shown():
    error = ValueError("404 for\n https://ada:secret@mirror.example/x and //bob@b.example")
    said = str(index.unreachable("https://ada:secret@mirror.example/x", error))
    expected = "404 for https://mirror.example/x and //b.example"
    assert said == f"no answer from mirror.example ({expected})"
