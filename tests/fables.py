"""A package index of our own on this machine, and a package to fetch from it."""

import hashlib
import io
import socket
import tarfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mslearn.index import Archive

TEXT = b"The fox said nothing.\n" * 20_000
TRAP = b"import pathlib; pathlib.Path(__file__).with_name('ran').touch(); raise SystemExit(9)"


def tarball(files, mode="w:gz"):
    """A tar archive in memory; a value may be a TarInfo for what is not a plain file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def pin(content, filename="fable_texts-1.2.tar.gz"):
    sha256 = hashlib.sha256(content).hexdigest()
    return Archive("fable-texts", "1.2", filename, sha256, len(content))


# Not compressed, so that it is long enough to be cut off in the middle.
SDIST = tarball({"fable_texts-1.2/setup.py": TRAP, "fable_texts-1.2/data/fox.txt": TEXT}, "w")


class Server:
    """An index on this machine: pages from `pages`, files from `files`, as slowly as asked."""

    def __init__(self, pages, files, seconds_a_chunk=0.0):
        server = self
        self.sent, self.asked = 0, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                page, file = pages.get(self.path), files.get(self.path)
                self.send_response(200 if page or file else 404)
                self.send_header("Content-Type", "text/html" if page else "application/gzip")
                self.send_header("Content-Length", str(len(page or file or b"")))
                self.end_headers()
                with suppress(ConnectionError):  # whoever asked may be gone
                    for start in range(0, len(page or file or b""), 1 << 14):
                        self.wfile.write((page or file)[start : start + (1 << 14)])
                        server.sent += 1
                        time.sleep(seconds_a_chunk if file else 0)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.index = f"http://127.0.0.1:{self.http.server_port}/index"

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
