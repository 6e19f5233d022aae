"""The run: bit-exact to resume, steered through plain fields, safe against what is not finite."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from toys import STEPS, finish, make_run, same_weights

from mslearn.run import Event, next_token_loss


@pytest.fixture(scope="module")
def undisturbed():
    return finish(make_run())


def losses(run):
    return [record.loss for record in run.log]


class TestResume:
    @pytest.fixture
    def stopped(self, tmp_path):
        """A folder with the checkpoint of a run that ended half-way, at step 8."""
        finish(make_run(tmp_path, save_every=4), 10)
        torch.manual_seed(99)  # a new process has another random state
        return tmp_path

    def test_losses_and_weights_are_those_of_a_run_never_stopped(self, stopped, undisturbed):
        run = make_run(stopped)
        assert run.resume() and run.step == 8
        finish(run)
        assert losses(run) == losses(undisturbed)
        assert same_weights(run.model, undisturbed.model)

    @pytest.mark.parametrize("part", ["optimizer", "random", "step"])
    def test_no_part_of_the_state_is_spare(self, stopped, undisturbed, part):
        run, fresh = make_run(stopped), make_run(stopped)
        torch.manual_seed(99)
        untouched = fresh.state()
        untouched["step"] = 0
        weights, state = run.checkpoints.latest()
        run.checkpoints.save(8, weights, {**state, part: untouched[part]}, {})
        assert run.resume()
        finish(run)
        assert not same_weights(run.model, undisturbed.model)

    def test_log_and_events_come_back(self, tmp_path):
        run = make_run(tmp_path, save_every=5)
        run.controls.lr = 0.001
        finish(run, 5)
        again = make_run(tmp_path)
        again.resume()
        assert again.log == run.log
        assert again.events == [Event(0, "lr", 0.001, 0.0)]

    def test_a_rate_by_hand_stays_in_the_hand(self, tmp_path):
        def driven(folder, steps):
            run = make_run(folder, save_every=5)
            for record in run.train(steps):
                if record.step == 2:
                    run.controls.lr = 0.003
            return run

        whole = driven(tmp_path / "whole", 15)
        driven(tmp_path / "parts", 10)
        again = make_run(tmp_path / "parts")
        assert again.resume()
        finish(again, 15)
        assert [r.lr for r in again.log] == [r.lr for r in whole.log]
        assert again.events == whole.events and same_weights(again.model, whole.model)

    def test_without_a_checkpoint_nothing_changes(self, tmp_path, undisturbed):
        run = make_run(tmp_path)
        assert run.resume() is False and make_run().resume() is False
        assert losses(finish(run)) == losses(undisturbed)


class TestControls:
    def test_a_rate_by_hand_holds_until_it_is_taken_back(self):
        run = make_run()
        for record in run.train(9):
            run.controls.lr = {2: 0.5e-3, 5: None}.get(record.step, run.controls.lr)
        used = [record.lr for record in run.log]
        assert used[3:6] == [0.5e-3] * 3
        assert [*used[:3], *used[6:]] == [run.schedule(s) for s in (0, 1, 2, 6, 7, 8)]
        assert run.events == [Event(3, "lr", 0.5e-3, 0), Event(6, "lr", None, 0)]

    def test_every_group_keeps_its_ratio_to_the_rate(self):
        run = make_run()
        run.controls.lr = 0.004
        finish(run, 1)
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.004, 0.002]

    def test_a_hand_that_sets_what_is_planned_changes_no_bit(self, undisturbed):
        run = make_run()
        for record in run.train(STEPS):
            run.controls.lr = run.schedule(record.step + 1)
        assert same_weights(run.model, undisturbed.model)

    def test_stop_ends_before_the_next_step_and_the_run_can_go_on(self, undisturbed):
        run = make_run()
        for record in run.train(STEPS):
            run.controls.stopped = record.step == 4
        assert run.step == 5 and run.events == [Event(5, "stopped", True, 0)]
        run.controls.stopped = False
        assert losses(finish(run)) == losses(undisturbed)

    def test_a_pause_waits_and_is_an_event(self, monkeypatch):
        run, waits = make_run(), []

        def sleep(seconds):
            waits.append(run.step)
            run.controls.paused = len(waits) < 3

        monkeypatch.setattr("mslearn.run.time.sleep", sleep)
        for record in run.train(6):
            run.controls.paused = record.step == 3 or run.controls.paused
        assert waits == [4, 4, 4]
        assert run.events == [Event(4, "paused", True, 0), Event(4, "paused", False, 0)]

    def test_a_note_is_pinned_to_the_next_step(self):
        run = make_run()
        for record in run.train(4):
            run.controls.note = "here" if record.step >= 1 else None
        assert run.events == [Event(2, "note", "here", 0)]


class TestNotFinite:
    def poisoned(self, steps):
        """A run whose loss is not a number at the given steps."""

        def loss(model, batch):
            value = next_token_loss(model, batch)
            return value * math.nan if run.step in steps else value

        run = make_run(loss=loss)
        return run

    def test_the_step_is_left_out_and_said_so(self):
        run = self.poisoned({3, 4, 6, 7})
        weights = {}
        for record in run.train(8):
            weights[record.step] = run.model.embedding.weight.clone()
        assert [record.step for record in run.log if record.skipped] == [3, 4, 6, 7]
        assert torch.equal(weights[2], weights[4]) and not torch.equal(weights[4], weights[5])

    def test_three_in_a_row_stop_the_run_with_what_to_do(self):
        with pytest.raises(FloatingPointError, match=r"three steps in a row.*third of the rate"):
            finish(self.poisoned({3, 4, 5}))


class TestStep:
    def test_parts_of_a_batch_add_up_to_the_whole(self):
        def exact(model, batch):  # next_token_loss would round to float32
            return cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

        gradients = []
        for parts in (1, 3, 4):  # 4 rows do not divide by 3
            run = make_run(loss=exact, accumulate=parts, clip=0.0)
            run.model.double()
            run.optimizer.step = lambda run=run: gradients.append(
                torch.cat([p.grad.flatten() for p in run.model.parameters()])
            )
            finish(run, 1)
        whole, *summed = gradients
        assert whole.norm() > 0 and len(summed) == 2
        assert all(torch.allclose(whole, parts, rtol=1e-12, atol=1e-14) for parts in summed)

    def test_a_step_that_was_interrupted_leaves_nothing_behind(self):
        calls = []

        def interrupted(model, batch):
            calls.append(batch)
            if len(calls) == 4:  # half-way through the second step
                raise KeyboardInterrupt
            return next_token_loss(model, batch)

        def plain(model, batch):  # as it is not marked, nothing is shared out among threads
            return next_token_loss(model, batch)

        run, whole = (make_run(loss=loss, accumulate=2) for loss in (interrupted, plain))
        with pytest.raises(KeyboardInterrupt):
            finish(run, 5)
        assert same_weights(finish(run, 5).model, finish(whole, 5).model)

    def test_the_gradient_is_cut_to_the_norm_and_its_own_is_logged(self):
        run, seen = make_run(loss=lambda m, b: 100 * next_token_loss(m, b)), []
        step = run.optimizer.step

        def spy():
            norms = [p.grad.norm() for p in run.model.parameters() if p.grad is not None]
            seen.append(float(torch.stack(norms).norm()))
            step()

        run.optimizer.step = spy
        finish(run, 3)
        assert seen == pytest.approx([1.0] * 3, rel=1e-4)
        assert all(record.grad_norm > 1 for record in run.log)

    def test_evaluation_is_due_every_so_often_and_at_the_end(self):
        modes = []

        def evaluate(model, device):
            modes.append(model.training)
            return {"score": 1.0}

        run = finish(make_run(evaluate=evaluate, evaluate_every=4), 10)
        assert [r.step for r in run.log if r.held_out] == [3, 7, 9]
        assert modes == [False] * 3 and run.model.training

    def test_the_loss_falls_on_what_can_be_learned(self, undisturbed):
        assert undisturbed.log[0].loss == pytest.approx(math.log(40), abs=0.05)
        assert undisturbed.log[-1].loss < 0.75 * math.log(40)
