"""The package is small, flat, quick to import and free of this or that machine's traces."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mslearn

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "mslearn").glob("*.py"))
PLACE = {name: place for place, name in enumerate(mslearn.ORDER)}
HEAVY = "matplotlib ipywidgets anywidget datasets sklearn tokenizers transformers torch._dynamo"


def imports(path: Path) -> set[str]:
    """The package's own modules that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mslearn":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mslearn."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {part[1] for part in parts if part[0] == "mslearn" and len(part) > 1}
    return found & PLACE.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryFile:
    def test_imports_only_from_files_above_it(self, path):
        if path.stem == "__init__":
            return
        assert path.stem in PLACE, f"add {path.stem} to ORDER in mslearn/__init__.py"
        below = {name for name in imports(path) if PLACE[name] >= PLACE[path.stem]}
        assert not below, f"{path.stem} imports {below} from below itself"

    def test_has_one_subject_named_first_in_at_most_250_lines(self, path):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 250
        assert ast.get_docstring(ast.parse(text))


def test_the_order_lists_no_file_twice():
    assert len(PLACE) == len(mslearn.ORDER)


def measured_imports() -> dict:
    """Import torch, then every module; report CPU seconds of the second and what came along."""
    modules = [path.stem for path in FILES if not path.stem.startswith("__")]
    code = (
        "import json, sys, time, importlib, torch\n"
        "torch.nn.functional, torch.utils.data\n"
        "start = time.process_time()\n"
        "import mslearn\n"
        f"for name in {modules}: importlib.import_module('mslearn.' + name)\n"
        "seconds = time.process_time() - start\n"
        f"heavy = [name for name in {HEAVY.split()} if name in sys.modules]\n"
        "print(json.dumps({'seconds': seconds, 'heavy': heavy}))"
    )
    python = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as by default: compiled once, and kept
    done = subprocess.run(python, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_everything_takes_at_most_three_tenths_beyond_torch():
    first, *runs = [measured_imports() for _ in range(9)]
    assert not first["heavy"], "import these where they are first needed"
    # The first may have to compile. What else the machine does can only add to the others.
    assert min(run["seconds"] for run in runs) <= 0.3


def tracked() -> list[Path]:
    """The text files that git tracks; nothing to look at away from a clone."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git clone")
    suffixes = {".py", ".ipynb", ".md", ".toml", ".yml", ".lock", ".json", ".jsonl", ""}
    paths = [ROOT / name for name in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in suffixes]


TRACES = {
    "a registry's host": re.compile(r"(?:files\.)?python(?:hosted)\.org|\bpypi\.\w+\b|/simple/"),
    "a personal folder": re.compile(r"/(?:home|Users)/\w+/|/root/|C:\\+Users"),
    "a temporary folder": re.compile(r"/tmp/\w|ipykernel_\d"),
    "this clone's folder": re.compile(re.escape(str(ROOT)) + r"\b"),
}


def test_no_tracked_file_names_a_registry_or_a_folder_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}: {what}: {match[0]}"
        for path in tracked()
        if path != Path(__file__).resolve()
        for what, pattern in TRACES.items()
        for match in pattern.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found, "\n".join(found)
