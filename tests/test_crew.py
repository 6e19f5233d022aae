"""Threads that share a batch: the batch's own gradient, whoever is faster, and no surprises."""

import _thread
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from mslearn.crew import MOST, crew, in_parts, mean_over_targets, splits
from mslearn.device import Device
from mslearn.fused import IGNORED
from mslearn.live import Live
from mslearn.masking import masked_loss
from mslearn.norms import BatchNorm1d
from mslearn.run import Run, next_token_loss
from mslearn.snapshots import Snapshots
from mslearn.tasks import Classifier, add_lora, classification_loss
from mslearn.transformer import Config, FeedForward, Transformer

CPU = Device("cpu", "test", None)
ROWS = 5  # which do not halve


@pytest.fixture(params=[2, 3, 6])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def decoder(causal=True):
    torch.manual_seed(0)
    model = Transformer(Config(20, context=8, n_layers=2, n_heads=2, d_model=16, causal=causal))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def texts(ignored=0.0):
    g = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(20, (2, ROWS, 8), generator=g)
    return inputs, targets.masked_fill(torch.rand(ROWS, 8, generator=g) < ignored, IGNORED)


def labelled():
    return texts()[0], torch.tensor([8, 3, 5, 1, 8]), torch.tensor([0, 1, 1, 0, 2])


def one_step(model, batch, loss, **settings):
    """The run, after a step that moves nothing and leaves the gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
    run = Run(model, lambda step: batch, optimizer, loss=loss, device=CPU, clip=0, **settings)
    list(run.train(1))
    return run


def by_threads(loss, seconds=lambda: 0.0):
    """The loss, and the threads that were asked for it."""

    def asked(model, batch):
        workers.append(threading.get_ident())
        time.sleep(seconds())
        return loss(model, batch)

    workers = []
    return mean_over_targets(asked), workers


def gradients(model):
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    ("make", "batch", "loss"),
    [
        (decoder, texts, next_token_loss),
        (decoder, lambda: texts(0.8), next_token_loss),
        (lambda: decoder(causal=False), lambda: texts(0.8), masked_loss),
        (lambda: Classifier(decoder(), 3), labelled, classification_loss),
    ],
    ids=["next token", "with ignored targets", "masked", "classes"],
)
def test_the_gradient_is_that_of_the_whole_batch(threads, accumulate, make, batch, loss):
    counted, workers = by_threads(loss)
    run, alone = one_step(make(), batch(), counted, accumulate=accumulate), make()
    loss(alone, batch()).backward()
    assert len(workers) > 1 and threading.get_ident() not in workers
    assert run.log[0].loss == pytest.approx(loss(alone, batch()).item(), rel=1e-5)
    for ours, right in zip(gradients(run.model), gradients(alone), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-6)


def test_who_is_faster_changes_no_bit(threads):
    turns = iter([0.05, 0.0, 0.05, 0.0, 0.0, 0.05, 0.0, 0.05] * 3)
    first, second = (
        one_step(decoder(), texts(), by_threads(next_token_loss, lambda: next(turns))[0])
        for _ in range(2)
    )
    assert first.log[0].loss == second.log[0].loss
    pairs = zip(gradients(first.model), gradients(second.model), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


class Noisy(FeedForward):
    """A learner's own layer, which draws numbers."""

    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.1)


@pytest.mark.parametrize(
    "kind", ["loss", "model", "dropout", "layer", "batch statistics", "hook", "backward hook"]
)
def test_what_parts_would_change_is_not_shared_out(kind):
    model, loss = decoder(), next_token_loss
    block = model.blocks[1]
    assert splits(model, loss)
    if kind == "loss":
        loss = partial(next_token_loss)
    elif kind == "model":
        model = type("Mine", (Transformer,), {})(model.config)
    elif kind == "dropout":
        block.feed_forward = nn.Sequential(block.feed_forward, nn.Dropout())
    elif kind == "layer":
        block.feed_forward = Noisy(16, 64)
    elif kind == "batch statistics":
        block.feed_forward = nn.Sequential(block.feed_forward, BatchNorm1d(16))
    elif kind == "hook":
        block.register_forward_hook(lambda *_: None)
    else:
        block.register_full_backward_pre_hook(lambda *_: None)
    assert not splits(model, loss)


def test_a_body_with_low_rank_updates_is_shared_out():
    model = Classifier(decoder(), 3)
    add_lora(model.body, 2)
    assert splits(model, classification_loss)


@pytest.mark.parametrize(("n_threads", "rows"), [(1, ROWS), (2, 1)])
def test_one_thread_or_one_text_is_worked_on_by_the_caller(threads, n_threads, rows):
    torch.set_num_threads(n_threads)
    loss, workers = by_threads(next_token_loss)
    one_step(decoder(), tuple(tensor[:rows] for tensor in texts()), loss)
    assert workers == [threading.get_ident()]


def test_weights_that_are_frozen_or_unused_stay_without_a_gradient(threads):
    model = decoder()
    model.embedding.weight.requires_grad_(False)
    model.spare = nn.Parameter(torch.ones(3))
    run = one_step(model, texts(), next_token_loss)
    without = [name for name, p in run.model.named_parameters() if p.grad is None]
    assert sorted(without) == ["embedding.weight", "spare"]


def test_a_fault_in_one_part_is_raised_and_the_run_goes_on(threads):
    model, calls = decoder(), []

    @mean_over_targets
    def faulty(model, batch):
        calls.append(len(calls))  # of one part each
        if len(calls) == 2:
            raise RuntimeError("in the second part")
        return next_token_loss(model, batch)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(model, lambda step: texts(), optimizer, loss=faulty, device=CPU)
    with pytest.raises(RuntimeError, match="in the second part"):
        list(run.train(3))
    assert len(list(run.train(3))) == 3


def small_run(loss=next_token_loss, **settings):
    model = decoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = {"device": CPU, **settings}
    return Run(model, lambda step: texts(0.1 * (step % 3)), optimizer, loss=loss, **settings)


def the_same(first, second):
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    equal = all(torch.equal(*pair) for pair in pairs)
    return equal and [r.loss for r in first.log] == [r.loss for r in second.log]


def test_an_interrupt_leaves_nobody_at_work_and_no_trace(threads):
    begun, ended, interrupted = [], [], []

    @mean_over_targets
    def loss(model, batch):
        begun.append(run.step)
        time.sleep(0.05)
        if begun.count(2) > 0 and not interrupted:
            interrupted.append(True)
            _thread.interrupt_main()
            time.sleep(0.05)
        value = next_token_loss(model, batch)
        ended.append(run.step)
        return value

    run, whole = small_run(loss), small_run()
    with pytest.raises(KeyboardInterrupt):
        list(run.train(4))
    assert len(begun) == len(ended) and run.step == 2
    list(run.train(4)), list(whole.train(4))
    assert the_same(run, whole)


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_rewound_or_live_it_is_the_same_run_to_the_bit(threads, amp):
    on = Device("cpu", "test", amp)
    plain = small_run(device=on)
    back = small_run(device=on, snapshots=Snapshots(every=2))
    live = small_run(device=on)
    list(plain.train(9)), list(back.train(6))
    back.rewind(2)
    list(back.train(9))
    assert splits(plain.model, plain.loss) and Live(live, 9).wait() is live
    assert the_same(plain, back) and the_same(plain, live)


def test_each_of_a_crew_computes_alone_and_other_threads_keep_their_number(threads):
    one_step(decoder(), texts(), next_token_loss)
    other = ThreadPoolExecutor(1)
    each = crew(threads).submit(torch.get_num_threads).result()
    assert each == max(1, threads // MOST)
    assert torch.get_num_threads() == other.submit(torch.get_num_threads).result() == threads


def test_accumulation_in_parts_goes_through_a_part_at_a_time(threads):
    loss, workers = by_threads(next_token_loss)
    one_step(decoder(), texts(), loss, accumulate=2)
    assert len(workers) == min(ROWS, 2 * min(threads, MOST))


def test_a_part_without_targets_is_left_out_and_an_empty_batch_is_not():
    inputs, targets = texts()
    targets[:2] = IGNORED
    (part, share), *others = in_parts((inputs, targets), 2, next_token_loss)
    assert share + sum(share for _, share in others) == pytest.approx(1)
    assert [len(part[0]), *(len(part[0]) for part, _ in others)] == [3, 2]
    halves = in_parts((inputs[:4], targets[:4]), 2, next_token_loss)
    assert [(len(part[0]), share) for part, share in halves] == [(2, 1.0)]
    nothing = in_parts((inputs[:2], targets[:2]), 2, next_token_loss)
    assert [(len(part[0]), share) for part, share in nothing] == [(2, 1.0)]
