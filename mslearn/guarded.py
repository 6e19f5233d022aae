"""What a run does when its guard speaks: it goes back, proposes a third of the rate, says why."""

import math
import warnings
from dataclasses import replace

from mslearn.guard import QUIET, Proposal
from mslearn.travel import HELD, Travel

RETURNS = 6  # times in a row that it goes back by itself before it gives up


class Guarded(Travel):
    """The part of `Run` that the guard may stop."""

    def _replaying(self, left: bool = False) -> bool:
        """Whether recorded events drive, the guard's among them; if asked, whether any is left."""
        script = self.script
        return script is not None and script.strict and (not left or len(script) > 0)

    def _is_sound(self, loss: float, norm: float) -> bool:
        """Whether the step may be taken: a finite gradient, and no objection of the guard's."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        if self._left_out == self.step:
            self._left_out = -1
            self._happened("skip", True)
            return False
        if self.snapshots and not self._replaying():
            self._trouble = self.guard.judge(self.step, loss, finite)
            if self._trouble and finite:
                self._happened("skip", True)
        return finite and not self._trouble

    def _meet_trouble(self) -> None:
        """Go back to before it began and propose a third of the rate; unasked, take it."""
        trouble, self._trouble = self._trouble, ""
        if not trouble:
            return
        script = self.script  # which a hand may drop at any time
        scripted = bool(script)  # and something left in it
        asked = script.answers() if scripted else self.attended
        back_to, step, rate = self._before_trouble(), self.step, self.base_rate(self.step - 1)
        trouble = f"{trouble} at rate {rate:.2g} (step {step - 1})"
        if not asked and (self.guard.headless == "raise" or self._returns > RETURNS):
            raise FloatingPointError(
                f"{trouble}; go back to step {back_to} and try a third of the rate"
            )
        planned = self.hand.lr is None
        value = self.hand.factor / 3 if planned else rate / 3
        self._return(back_to)
        if planned and self.hand.lr is not None:
            planned, value = False, rate / 3  # back to where a hand held the rate
        why = f"{trouble}: back at step {self.step}, try a third of the rate"
        self.say(why)
        control = "factor" if planned else "lr"
        if asked:
            self.proposal = Proposal(step, self.step, control, value, why)
            self.controls.paused = not scripted
        else:
            warnings.warn(f"{why}; nobody is there to say no, so it is done", stacklevel=5)
            setattr(self.controls, control, value)

    def _before_trouble(self) -> int:
        """The newest snapshot from before the loss was at its best; an older one each time that
        the run comes no further than before."""
        again = self.step < self._furthest + QUIET
        self._returns = self._returns + 1 if again else 1
        self._furthest = max(self._furthest, self.step)
        steps = self.reachable()
        before = [step for step in steps if step <= self.guard.best_step] or steps[:1]
        return before[-min(self._returns, len(before))]

    def _return(self, step: int) -> None:
        """The guard's rewind. What it leaves is held until it is known whether that was right."""
        found, line = self._whole(step), self.family.now
        self.snapshots.cut(HELD)
        if self.attended or self.script:
            self.snapshots.take(HELD, self.step, self.model.state_dict(), self.moment())
        self._held = self.step, line.log, line.events
        self._happened("guard", found[0].step)
        self._go_back(*found)
        self._arrived()

    def _answer(self, answer: str) -> None:
        """What the learner says to the guard's proposal: take it, or put back what it left."""
        if self._held is None:
            raise ValueError("the guard has asked for nothing")
        self._happened("answer", answer)
        proposal, self.proposal = self.proposal, None
        self.controls.paused = False
        if answer == "accept" and proposal:
            setattr(self.controls, proposal.control, proposal.value)
        elif answer == "overrule":
            self._overrule()
        self._forget_held()

    def _overrule(self) -> None:
        step, log, events = self._held
        snapshot = self.snapshots.get(HELD, step)
        if snapshot is None:
            self.say("there was no room to keep what the guard left, so the run goes on from here")
            return
        self.put_back(*snapshot.read())
        self.family.now.log, self.family.now.events = log, events
        self.guard = replace(self.guard, quiet_until=step + QUIET)
        self._arrived()

    def _settle(self) -> None:
        """The run goes on: a proposal without an answer is answered by that."""
        if self.proposal:
            self.say("the guard's proposal was left aside")
            self.proposal = None
            self._forget_held()

    def _forget_held(self) -> None:
        self._held = None
        if self.snapshots:
            self.snapshots.cut(HELD)
