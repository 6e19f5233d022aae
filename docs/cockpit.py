"""Take the README's picture: a transformer that is driven in JupyterLab, as in chapter 6.

python docs/cockpit.py
"""

import tempfile
from pathlib import Path

from mslearn.browser import jupyterlab, window
from mslearn.pilot import Pilot

PICTURE = Path(__file__).resolve().parent / "cockpit.png"
RUN = """\
text, device = rates.texts(), pick()
plan = schedules.warmup_stable_decay(0.06, 20, 300, 0)
run = rates.make_run(text["train"], plan, seed=0, device=device)
run.evaluate, run.evaluate_every = HeldOut(text["valid"], 64, max_tokens=8_000), 40
guess = Guess(run, 300, typed={0: 5.5, 40: 3.0, 300: 1.9})"""
IMPORTS = """\
from mslearn import rates, schedules
from mslearn.batches import HeldOut
from mslearn.device import pick
from mslearn.generate import generate
from mslearn.guess import Guess
from mslearn.live import Live


def write(model):
    return bytes(generate(model, list(b"The "), 90)).decode(errors="replace")


HAND = [  # what it does until yours does
    (60, "factor", 0.4),
    (60, "note", "a calmer rate"),
    (90, "factor", 1.0),
    (130, "lr", 1.0),
    (100, "answer", "accept"),
    (160, "rewind", 120),
    (220, "branch", ("falling", 150)),
    (165, "factor", 0.5),
    (185, "factor", 0.25),
    (205, "factor", 0.1),
]"""
LIVE = """\
live = Live(run, 300, title="300 steps on Wikipedia", guess=guess, events=HAND, sample=write)"""
TIP = 235  # the step of the branch at which the picture is taken


def main() -> None:
    """Run the cells, wait for the branch, and leave docs/cockpit.png."""
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyterlab(Path(folder)) as lab,
        window(1240, 1400) as page,
    ):
        pilot = Pilot(page, lab, "drive.ipynb", (f"{IMPORTS}\n\n{RUN}", LIVE))
        pilot.open()
        pilot.run(0)
        pilot.run(1)
        pilot.table.get_by_role("rowheader", name="falling").wait_for(timeout=300_000)
        pilot.reach(TIP)
        pilot.button("Pause").click()
        pilot.says("^paused")
        panel = page.locator(".mslearn-panel")
        panel.scroll_into_view_if_needed()
        page.mouse.move(5, 5)
        page.wait_for_timeout(1_500)
        panel.screenshot(path=PICTURE)
        pilot.shut_down()


if __name__ == "__main__":
    main()
