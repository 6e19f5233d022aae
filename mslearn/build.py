"""Notebooks as they are committed: executed, normalised, and exercises made from solutions."""

import argparse
import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mslearn.cells import exercises
from mslearn.home import course, home

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_SECONDS = 300
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn build`."""
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all of them by default")
    flag = {"action": "store_true"}
    parser.add_argument("--check", **flag, help="change nothing, say what is out of order")
    parser.add_argument("--overwrite", **flag, help="renew exercises, keeping a worked one aside")


def command(arguments: argparse.Namespace) -> int:
    """Build, or check, the notebooks asked for; 1 when something is out of order."""
    folders = ("notebooks", "solutions")
    every = sorted(path for each in folders for path in (course() / each).glob("*.ipynb"))
    paths = [path.resolve() for path in arguments.paths] or every
    wrong = [] if arguments.paths else orphans(course())
    for path in paths:
        if arguments.check:
            wrong += check(path)
        else:
            print(path.name, end=" ", flush=True)
            wrong += build(path, overwrite=arguments.overwrite)
            print("done")
    print(*wrong or [f"{len(paths)} notebooks in order"], sep="\n")
    return 1 if wrong else 0


def build(path: Path, *, overwrite: bool = False) -> list[str]:
    """Execute and normalise one notebook in place; from a solution also make its exercises.

    Returns what was left undone, a sentence each. Raises ValueError naming the cell that failed.
    """
    notebook = read(path)
    solution = path.parent.name == "solutions"
    if solution:
        exercises(notebook)  # a fault in its markers should not cost a run
    execute(notebook, path)
    write(normalise(notebook, path.stem), path)
    return build_exercises(notebook, path, overwrite=overwrite) if solution else []


def build_exercises(solution: "NotebookNode", path: Path, *, overwrite: bool) -> list[str]:
    """Write the exercises of the solution at `path`, sparing a file someone has worked in."""
    target = path.parent.parent / "exercises" / path.name
    if target.exists() and worked_in(read(target)):
        if not overwrite:
            return [f"{target.name} holds someone's work and was left; pass --overwrite to renew"]
        shutil.copy2(target, side_file(target))
    made = exercises(solution)
    target.parent.mkdir(exist_ok=True)
    execute(made, target)
    write(finished(made, path), target)
    return []


def finished(made: "NotebookNode", path: Path) -> "NotebookNode":
    """Exercises of the solution at `path` as they are kept, with what tells a later edit."""
    normalise(made, path.stem)
    made.metadata.mslearn = {"from": f"solutions/{path.name}", "sha256": digest(made)}
    return made


def check(path: Path) -> list[str]:
    """What is out of order in a committed notebook, without running it; a sentence each."""
    notebook = read(path)
    wrong = [f"{path.parent.name}/{path.name}: {each}" for each in disorder(notebook, path.stem)]
    if path.parent.name != "solutions":
        return wrong
    target = path.parent.parent / "exercises" / path.name
    name, mend = f"exercises/{target.name}", f"run `mslearn build solutions/{path.name}`"
    if not target.exists():
        return [*wrong, f"{name} is missing: {mend}"]
    kept, made = read(target), exercises(notebook)
    if skeleton(kept) != skeleton(made):
        wrong.append(f"{name} is not what solutions/{path.name} makes: {mend}")
    elif worked_in(kept) or target.read_text("utf-8") != text(finished(kept, path)):
        wrong.append(f"{name} was edited or run by hand: {mend} --overwrite")
    return wrong


def orphans(folder: Path) -> list[str]:
    """Exercises that no solution makes; a sentence each."""
    made = {path.name for path in (folder / "solutions").glob("*.ipynb")}
    kept = sorted((folder / "exercises").glob("*.ipynb"))
    alone = [path.name for path in kept if path.name not in made and ".side." not in path.name]
    return [f"exercises/{name} is made by no solution: remove it" for name in alone]


def disorder(notebook: "NotebookNode", stem: str) -> list[str]:
    """How a notebook differs from its executed and normalised form."""
    wrong = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        wrong.append("its cells were not run once each in order")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        wrong.append("a cell ended in an error")
    if not wrong and notebook != normalise(copy.deepcopy(notebook), stem):
        wrong.append("it holds what a session left behind (timings, widgets, versions, ids)")
    return [f"{each}; run `mslearn build` on it" for each in wrong]


def execute(notebook: "NotebookNode", path: Path) -> None:
    """Run every cell in the notebook's folder, for a learner who has answered nothing yet."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    where = {"metadata": {"path": str(path.parent)}}
    options = {"timeout": CELL_SECONDS, "kernel_name": "python3", "record_timing": False}
    client = NotebookClient(notebook, resources=where, **options)
    client.extra_arguments = ["--log-level=ERROR"]  # a kernel warns that it runs over TCP
    with tempfile.TemporaryDirectory(prefix="mslearn-build-") as folder:
        share_texts(Path(folder))
        environment = {**os.environ, "MSLEARN_HOME": folder, "PYTHONHASHSEED": "0"}
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError) as error:
            number = client.code_cells_executed
            said = re.sub(r"\x1b\[[\d;]*m", "", str(error))
            raise ValueError(f"{path.name}, code cell {number}:\n{said}") from error


def share_texts(folder: Path) -> None:
    """Let a fresh learner's folder see the texts that are fetched already."""
    texts = home() / "data"
    texts.mkdir(exist_ok=True)
    try:
        (folder / "data").symlink_to(texts, target_is_directory=True)
    except OSError:  # Windows asks for a privilege
        shutil.copytree(texts, folder / "data")


def normalise(notebook: "NotebookNode", stem: str) -> "NotebookNode":
    """Leave only what the same run would leave again, on any machine; changes and returns it."""
    from nbformat import from_dict

    kept = {"mslearn": notebook.metadata["mslearn"]} if "mslearn" in notebook.metadata else {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, **kept}
    notebook.update(metadata=from_dict(metadata), nbformat=4, nbformat_minor=5)
    name_cells(notebook, stem)
    count = 0
    for cell in notebook.cells:
        keep = ("tags", "jupyter")
        cell.metadata = from_dict({key: cell.metadata[key] for key in keep if key in cell.metadata})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = tidy(cell.outputs, count)
    return notebook


def name_cells(notebook: "NotebookNode", stem: str) -> None:
    """Give each cell an id that stays: one of ours is kept, a random one gives way."""
    prefix, taken = f"{stem.split('_')[0]}-", set()
    for cell in notebook.cells:
        name, again = cell.get("id", ""), 0
        while not name.startswith(prefix) or name in taken:
            content = f"{cell.cell_type}\n{cell.source}\n{again}"
            name = prefix + hashlib.sha256(content.encode()).hexdigest()[:8]
            again += 1
        cell.id = name
        taken.add(name)


def tidy(outputs: "list[NotebookNode]", count: int) -> "list[NotebookNode]":
    """Join what one stream wrote in pieces and drop views of widgets that will be gone."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
            continue
        view = "data" in output and output.data.pop(WIDGET, None)
        if view and set(output.data) <= {"text/plain"}:
            continue
        if "execution_count" in output:
            output.execution_count = count
        kept.append(output)
    return kept


def skeleton(notebook: "NotebookNode") -> list:
    """What generation decides of each cell: all but its outputs."""
    return [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]


def digest(notebook: "NotebookNode") -> str:
    """SHA-256 over all cells with their outputs, so that a hand's edit shows."""
    return hashlib.sha256(json.dumps(notebook.cells, sort_keys=True).encode()).hexdigest()


def worked_in(notebook: "NotebookNode") -> bool:
    """Whether a generated notebook has changed since it was written, by as little as a run."""
    return notebook.metadata.get("mslearn", {}).get("sha256") != digest(notebook)


def side_file(path: Path) -> Path:
    """A free name beside `path` for the work that is about to be replaced; git ignores it."""
    n = 1
    while (free := path.with_name(f"{path.stem}-{n}.side.ipynb")).exists():
        n += 1
    return free


def read(path: Path) -> "NotebookNode":
    """A notebook from disk; ValueError when it is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error


def write(notebook: "NotebookNode", path: Path) -> None:
    """Replace the file at once, so that a crash leaves the old one or the new one whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text(notebook), "utf-8", newline="\n")
    partial.replace(path)


def text(notebook: "NotebookNode") -> str:
    """A notebook as it stands in its file."""
    import nbformat

    return nbformat.writes(notebook) + "\n"
