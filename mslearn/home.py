"""Where things live: the course's folder and the learner's own."""

import os
from pathlib import Path


def course() -> Path:
    """The folder that holds `notebooks/`, `exercises/` and `checkpoints/`.

    Raises FileNotFoundError when the package was installed away from its course.
    """
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "notebooks").is_dir():
        raise FileNotFoundError(
            f"no notebooks beside the package in {folder}: mslearn is used from its own folder, "
            "so clone the course and run `make lab` there"
        )
    return folder


def home() -> Path:
    """The learner's own folder (texts, tokens, progress, predictions); made when missing.

    `MSLEARN_HOME` names another one. Raises OSError with the mend when it cannot be written.
    """
    import platformdirs

    folder = Path(os.environ.get("MSLEARN_HOME") or platformdirs.user_data_dir("mslearn"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make {folder} ({error.strerror}): set MSLEARN_HOME to a folder you can write"
        ) from error
    return folder
