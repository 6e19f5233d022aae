"""Norms by layer are those of the tensors themselves, and cost a GPU no wait."""

import pytest
import torch
from toys import finish, make_run, same_weights, tiny_run

from mslearn.watch import layer_of


def norm(tensors):
    return float(torch.cat([t.detach().flatten() for t in tensors]).norm())


class Spied:
    """A run with, for each step, the layers' gradients as backward left them and their weights."""

    def __init__(self, run):
        self.run, self.gradients, self.weights = run, [], []
        self.layers = [[*run.model[0].parameters()], [*run.model[3].parameters()]]
        before, step = run.watch.before, run.optimizer.step

        def spy(at):
            self.gradients.append([norm([p.grad for p in layer]) for layer in self.layers])
            before(at)

        def spy_step():
            old = [[p.detach().clone() for p in layer] for layer in self.layers]
            step()
            moved = [
                norm([p - o for p, o in zip(layer, was, strict=True)]) / norm(was)
                for layer, was in zip(self.layers, old, strict=True)
            ]
            self.weights.append(moved)

        run.watch.before, run.optimizer.step = spy, spy_step


@pytest.mark.parametrize("every, sampled", [(1, range(7)), (3, [0, 3, 6])])
def test_they_are_the_norms_of_gradients_before_clipping_and_of_updates(every, sampled):
    run = tiny_run(watch_every=every, clip=0.01)
    spied = Spied(run)
    finish(run, 7)
    assert run.layers == ["0", "3"] and [s.step for s in run.log.layers] == list(sampled)
    for sample in run.log.layers:
        assert list(sample.gradients) == pytest.approx(spied.gradients[sample.step], rel=1e-5)
        assert list(sample.updates) == pytest.approx(spied.weights[sample.step], rel=1e-3)
        whole = run.log[sample.step].grad_norm
        assert sum(g**2 for g in sample.gradients) ** 0.5 == pytest.approx(whole, rel=1e-5)


def test_looking_changes_no_bit():
    watched, plain = finish(make_run(watch_every=2), 8), finish(make_run(), 8)
    assert same_weights(watched.model, plain.model)
    assert [r.loss for r in watched.log] == [r.loss for r in plain.log]


def test_a_gpu_is_made_to_wait_once_a_step_as_without(monkeypatch):
    waits, run = [], tiny_run(watch_every=1)
    for name in ("tolist", "item", "__float__", "__bool__", "cpu", "numpy"):
        real = getattr(torch.Tensor, name)

        def counted(self, *rest, real=real, name=name):
            waits.append(name)
            return real(self, *rest)

        monkeypatch.setattr(torch.Tensor, name, counted)
    run.optimizer.step = lambda: None  # torch's own counts its steps on the CPU
    steps = run.train(9)
    for _ in range(8):
        next(steps)
    assert waits == ["tolist"] * 8 and len(run.log.layers) == 7


def test_a_step_left_out_has_no_sample():
    def loss(model, batch):
        value = (model(batch[0]) - batch[1]).square().mean()
        return value * float("nan") if run.step in (2, 3) else value

    run = tiny_run(watch_every=1, loss=loss)
    finish(run, 6)
    assert [sample.step for sample in run.log.layers] == [0, 1, 4, 5] and run.skipped == 2


def test_a_parameter_without_a_gradient_counts_as_zero():
    run = tiny_run(watch_every=1, loss=lambda model, batch: model[0](batch[0]).square().mean())
    finish(run, 2)
    assert [sample.gradients[1] for sample in run.log.layers] == [0.0, 0.0]


@pytest.mark.parametrize(
    "name, layer",
    [
        ("blocks.3.mlp.up.weight", "blocks.3"),
        ("body.blocks.11.norm.weight", "body.blocks.11"),
        ("embedding.weight", "embedding"),
        ("0.bias", "0"),
        ("scale", "scale"),
    ],
)
def test_a_layer_is_what_the_name_says_up_to_its_first_number(name, layer):
    assert layer_of(name) == layer
