"""Archives arrive whole or not at all, and what is in them is never run."""

import errno
import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from fables import SDIST, TEXT, TRAP, Server, closed_port, pin

from mslearn import fetch, index
from mslearn.index import FetchError


@pytest.fixture(autouse=True)
def learner(tmp_path, monkeypatch):
    """A learner's folder of its own."""
    monkeypatch.setenv("MSLEARN_HOME", str(tmp_path / "learner"))
    return tmp_path / "learner" / "data"


@pytest.fixture
def links(tmp_path, monkeypatch):
    """A folder that pip was told to look in, and no index."""
    folder = tmp_path / "links"
    folder.mkdir()
    options = {"no-index": "true", "find-links": str(folder)}
    monkeypatch.setattr(index, "pip_options", lambda: options)
    return folder


@pytest.fixture
def serve():
    """Start an index that offers one file; stopped after the test."""
    servers = []

    def start(content, filename="fable_texts-1.2.tar.gz", seconds_a_chunk=0.0):
        page = f'<a href="/files/{filename}">{filename}</a>'.encode()
        pages, files = {"/index/fable-texts/": page}, {f"/files/{filename}": content}
        servers.append(Server(pages, files, seconds_a_chunk))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def only_sentence(caught):
    message = str(caught.value)
    assert "\n" not in message and message.endswith("then run `mslearn data --all`")
    return message


class TestFetching:
    def test_an_sdist_is_read_without_running_its_setup(self, links, learner):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        path = fetch.get(pin(SDIST), progress=False)
        assert fetch.member(path, "data/fox.txt") == TEXT
        assert sorted(each.name for each in learner.iterdir()) == ["fable_texts-1.2.tar.gz"]
        assert not list(links.parent.rglob("ran"))

    def test_a_wheel_for_another_python_is_data_like_any_other(self, links):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as wheel:
            wheel.writestr("fable_texts/__init__.py", TRAP)
            wheel.writestr("fable_texts/data/fox.txt", TEXT)
        name = "fable_texts-1.2-cp27-cp27m-win32.whl"
        (links / name).write_bytes(buffer.getvalue())
        path = fetch.get(pin(buffer.getvalue(), name), progress=False)
        assert fetch.member(path, "fable_texts/data/fox.txt") == TEXT
        assert "fable_texts" not in sys.modules

    def test_an_index_page_is_followed_with_a_progress_bar(self, serve, monkeypatch, capsys):
        server = serve(SDIST)
        monkeypatch.setattr(index, "pip_options", lambda: {"index-url": server.index})
        assert fetch.get(pin(SDIST)).read_bytes() == SDIST
        assert server.asked == ["/index/fable-texts/", "/files/fable_texts-1.2.tar.gz"]
        assert "fable-texts 1.2: 100%" in capsys.readouterr().err

    def test_what_is_here_is_not_fetched_again(self, links, monkeypatch):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        path = fetch.get(pin(SDIST), progress=False)
        before = path.stat().st_mtime_ns
        monkeypatch.setattr(index, "pip_settings", lambda: pytest.fail("asked the index"))
        assert fetch.get(pin(SDIST)).stat().st_mtime_ns == before

    def test_a_mirror_that_fails_is_passed_over_for_one_that_works(self, serve, monkeypatch):
        dead, stale, good = f"http://127.0.0.1:{closed_port()}/x", serve(SDIST[:-9]), serve(SDIST)
        urls = {"index-url": dead, "extra-index-url": f"{stale.index}\n{good.index}"}
        monkeypatch.setattr(index, "pip_options", lambda: urls)
        assert fetch.get(pin(SDIST), progress=False).read_bytes() == SDIST

    def test_two_at_once_do_not_harm_each_other(self, links, learner):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        with ThreadPoolExecutor(4) as pool:
            paths = list(pool.map(lambda _: fetch.get(pin(SDIST), progress=False), range(4)))
        assert paths[0].read_bytes() == SDIST
        assert [each.name for each in learner.iterdir()] == ["fable_texts-1.2.tar.gz"]


class TestDamage:
    def test_a_flipped_bit_in_the_copy_is_seen_and_mended(self, links):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        path = fetch.get(pin(SDIST), progress=False)
        damaged = bytearray(SDIST)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        assert fetch.get(pin(SDIST), progress=False).read_bytes() == SDIST

    @pytest.mark.parametrize(
        ("sent", "fault"),
        [
            (SDIST[: len(SDIST) // 3], r"sent 150,186 of 450,560 bytes"),
            (SDIST[:-1] + b"x", "its SHA-256 differs"),
            (SDIST + b"more", "its SHA-256 differs"),
            (b"", "sent 0 of"),
        ],
        ids=["truncated", "changed", "longer", "empty"],
    )
    def test_other_bytes_are_refused_and_the_second_try_mends(self, links, learner, sent, fault):
        (links / "fable_texts-1.2.tar.gz").write_bytes(sent)
        with pytest.raises(FetchError, match=fault) as caught:
            fetch.get(pin(SDIST), progress=False)
        assert "cannot fetch fable-texts 1.2 (0.5 MB)" in only_sentence(caught)
        assert not list(learner.iterdir())
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        assert fetch.get(pin(SDIST), progress=False).read_bytes() == SDIST

    @pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
    def test_a_download_killed_in_the_middle_leaves_nothing_that_counts(self, serve, learner):
        server = serve(SDIST, seconds_a_chunk=0.05)
        child = subprocess.Popen([sys.executable, "-c", download(server.index)])
        while server.sent < 8:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        (part,) = learner.iterdir()
        assert part.suffix == ".part" and part.stat().st_size < len(SDIST)
        server = serve(SDIST)
        done = subprocess.run([sys.executable, "-c", download(server.index)])
        assert done.returncode == 0
        assert pin(SDIST).path.read_bytes() == SDIST

    def test_a_killed_download_is_swept_away_later_and_a_living_one_left(self, links, learner):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)
        learner.mkdir(parents=True)
        old, young = learner / "a.whl.00.part", learner / "b.whl.11.part"
        old.write_bytes(b"x")
        young.write_bytes(b"x")
        os.utime(old, (time.time() - 600,) * 2)
        fetch.get(pin(SDIST), progress=False)
        assert not old.exists() and young.exists()


def download(url, first=""):
    """A program that fetches the fable in a process of its own."""
    return (
        "from mslearn import fetch, index\n"
        "from mslearn.index import Archive\n"
        f"{first}\n"
        f"index.pip_options = lambda: {{'index-url': {url!r}}}\n"
        f"fetch.get({pin(SDIST)!r}, progress=False)\n"
    )


class TestTheDisk:
    @pytest.mark.skipif(os.name == "nt", reason="the limit is POSIX's")
    def test_no_room_for_the_whole_file(self, serve, learner):
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99_999, 99_999))"
        code = download(serve(SDIST).index, limit)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1]
        assert "cannot keep fable-texts 1.2 (0.5 MB): File too large in" in last
        assert last.endswith("free some room, then run `mslearn data --all`")
        assert not list(learner.iterdir())

    def test_a_full_disk_at_the_last_moment_then_mended(self, links, learner, monkeypatch):
        (links / "fable_texts-1.2.tar.gz").write_bytes(SDIST)

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(fetch.os, "fsync", full)
            with pytest.raises(FetchError, match=r"No space left on device in .* free some room"):
                fetch.get(pin(SDIST), progress=False)
        assert not list(learner.iterdir())
        assert fetch.get(pin(SDIST), progress=False).read_bytes() == SDIST

    def test_a_folder_that_is_a_file(self, links, learner):
        learner.parent.mkdir()
        learner.write_text("in the way")
        with pytest.raises(FetchError, match="set MSLEARN_HOME to a folder of yours") as caught:
            fetch.get(pin(SDIST), progress=False)
        assert "File exists" in only_sentence(caught)


class TestNoNetwork:
    def test_a_refused_connection_is_one_sentence_at_once(self, learner, monkeypatch):
        url = f"http://ada:secret@127.0.0.1:{closed_port()}/index"
        monkeypatch.setattr(index, "pip_options", lambda: {"index-url": url})
        start = time.perf_counter()
        with pytest.raises(FetchError, match=r"no answer from 127\.0\.0\.1") as caught:
            fetch.get(pin(SDIST), "mslearn data --all")
        assert time.perf_counter() - start < 3
        assert "fable-texts 1.2" in only_sentence(caught) and "secret" not in str(caught.value)
        assert not list(learner.iterdir())

    def test_an_index_that_never_answers_is_given_up(self, monkeypatch):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/index"
            monkeypatch.setattr(index, "pip_options", lambda: {"index-url": url})
            monkeypatch.setattr(index, "FIND_SECONDS", 0.3)
            start = time.perf_counter()
            with pytest.raises(FetchError, match=r"nothing within 0\.3 s"):
                fetch.get(pin(SDIST), progress=False)
            assert time.perf_counter() - start < 2

    def test_a_download_that_stops_coming_is_given_up(self, serve, learner, monkeypatch):
        server = serve(SDIST, seconds_a_chunk=1.0)
        monkeypatch.setattr(index, "pip_options", lambda: {"index-url": server.index})
        monkeypatch.setattr(index, "READ_SECONDS", 0.2)
        with pytest.raises(FetchError, match=r"no answer from 127\.0\.0\.1 \(.*timed out"):
            fetch.get(pin(SDIST), progress=False)
        assert not list(learner.iterdir())

    def test_an_index_without_the_archive_and_no_index_at_all(self, serve, links, monkeypatch):
        with pytest.raises(FetchError, match=r"links does not offer fable_texts-1\.2\.tar\.gz"):
            fetch.get(pin(SDIST), progress=False)
        monkeypatch.setattr(index, "pip_options", lambda: {"no-index": "1"})
        with pytest.raises(FetchError, match="pip is told to use no index"):
            fetch.get(pin(SDIST), progress=False)
        server = serve(SDIST, filename="fable_texts-1.3.tar.gz")
        monkeypatch.setattr(index, "pip_options", lambda: {"index-url": server.index})
        with pytest.raises(FetchError, match=r"127\.0\.0\.1 does not offer fable_texts-1\.2"):
            fetch.get(pin(SDIST), progress=False)
