"""Labelled texts come to batches without leaks or surprises; the classifier learns from them."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.labelled import Encoded, TextBatches, Texts, bag_of_words, load_task, majority
from mslearn.run import Run
from mslearn.tasks import (
    Classifier,
    LoRA,
    Scores,
    add_lora,
    classification_loss,
    fine_tuner,
    predict,
)
from mslearn.transformer import Config, Transformer

CPU = Device("cpu", "test", None)
CLASSES = ("animal", "tool")
WORDS = {"animal": ["cat", "dog", "owl", "hen"], "tool": ["saw", "axe", "nut", "bit"]}


def made_up(count: int, seed: int = 0) -> Texts:
    """Sentences whose class is settled by the words in them."""
    generator = np.random.default_rng(seed)
    labels = [CLASSES[i] for i in generator.integers(2, size=count)]
    texts = [" ".join(generator.choice(WORDS[c], size=generator.integers(2, 9))) for c in labels]
    return Texts.of(texts, labels, CLASSES)


@pytest.fixture(scope="module")
def tokenizer() -> BPE:
    return BPE.train(list(made_up(200).texts), 300)


def small_body(vocab_size: int = 300, seed: int = 0) -> Transformer:
    """A small network whose blocks are not the identity they start as."""
    torch.manual_seed(seed)
    body = Transformer(Config(vocab_size, context=16, n_layers=2, n_heads=2, d_model=16))
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.3)
    return body


class TestTexts:
    @pytest.mark.parametrize(
        ("texts", "labels", "classes", "sentence"),
        [
            (["a"], ["x"], ["x"], "two classes or more, got \\['x'\\]"),
            (["a"], ["z"], ["x", "y"], "unknown label 'z': expected one of x, y"),
            (["a", "b"], ["x"], ["x", "y"], "got 2 and 1"),
            ([], [], ["x", "y"], "got 0 and 0"),
        ],
    )
    def test_bad_input_is_named_in_one_sentence(self, texts, labels, classes, sentence):
        with pytest.raises(ValueError, match=sentence):
            Texts.of(texts, labels, classes)

    @given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 5))
    def test_a_smaller_choice_is_part_of_a_larger_one(self, a, b, seed):
        texts = Texts.of([str(i) for i in range(50)], ["x", "y"] * 25, ["x", "y"])
        small, large = (set(texts.take(n, seed).texts) for n in sorted((a, b)))
        assert small <= large and len(large) == max(a, b)

    def test_more_texts_than_there_are_cannot_be_chosen(self):
        with pytest.raises(ValueError, match="between 1 and all 5 texts, got 6"):
            made_up(5).take(6)

    def test_an_unknown_task_names_those_there_are(self):
        with pytest.raises(ValueError, match="topics, sentiment"):
            load_task("poems")

    @pytest.mark.parametrize("name", ["topics", "sentiment"])
    def test_no_text_is_in_two_splits_and_every_class_in_each(self, name):
        task = load_task(name)
        splits = [task.train, task.valid, task.test]
        assert sum(len(set(s.texts)) for s in splits) == len(
            set().union(*(s.texts for s in splits))
        )
        assert all(len(set(s.labels)) == len(s.classes) for s in splits)


class TestBatches:
    @given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 200), st.integers(0, 9))
    def test_a_batch_depends_on_seed_and_step_alone(self, n_texts, batch_size, step, seed):
        lengths = np.random.default_rng(n_texts).integers(1, 12, size=n_texts)
        encoded = Encoded([np.arange(n) for n in lengths], np.arange(n_texts) % 3, 3)
        walked = TextBatches(encoded, batch_size, seed)
        for before in range(min(step, 5)):
            walked(before)
        for ours, again in zip(
            walked(step), TextBatches(encoded, batch_size, seed)(step), strict=True
        ):
            assert torch.equal(ours, again)

    def test_a_pass_reads_every_text_once(self):
        encoded = Encoded([np.array([i] * (1 + i % 7)) for i in range(64)], np.zeros(64), 2)
        batches = TextBatches(encoded, 8, seed=3)
        read = [int(first) for step in range(8) for first in batches(step)[0][:, 0]]
        assert sorted(read) == list(range(64))
        assert read != [int(first) for step in range(8, 16) for first in batches(step)[0][:, 0]]

    def test_sorting_by_length_leaves_little_padding(self):
        lengths = np.random.default_rng(0).integers(1, 60, size=512)
        batches = TextBatches(Encoded([np.ones(n, int) for n in lengths], lengths * 0, 2), 16)
        filled = np.mean([batches(s)[1].float().mean() / batches(s)[0].shape[1] for s in range(32)])
        assert filled > 0.85

    def test_fewer_texts_than_a_batch_are_refused(self):
        with pytest.raises(ValueError, match="3 texts are fewer than a batch of 4"):
            TextBatches(Encoded([np.ones(2, int)] * 3, np.zeros(3), 2), 4)


class TestClassifier:
    def test_pooling_is_the_mean_of_each_texts_own_features(self):
        model = Classifier(small_body(), 2)
        tokens, lengths = torch.randint(300, (3, 7)), torch.tensor([7, 4, 1])
        pooled = model.pool(tokens, lengths)
        for row, (text, length) in enumerate(zip(tokens, lengths, strict=True)):
            alone = model.body.features(text[None, :length])[0].mean(0)
            torch.testing.assert_close(pooled[row], alone)

    def test_padding_changes_nothing(self):
        model = Classifier(small_body(), 2)
        nn.init.normal_(model.head.weight)
        tokens, lengths = torch.randint(300, (2, 6)), torch.tensor([6, 3])
        wider = torch.cat([tokens, torch.randint(300, (2, 5))], dim=1)
        torch.testing.assert_close(model(wider, lengths), model(tokens, lengths))

    def test_the_first_loss_is_the_logarithm_of_the_number_of_classes(self):
        batch = torch.randint(300, (4, 5)), torch.tensor([5, 5, 2, 1]), torch.tensor([0, 1, 2, 2])
        loss = classification_loss(Classifier(small_body(), 3), batch)
        assert loss.item() == pytest.approx(np.log(3))

    def test_rates_fall_by_layer_and_the_head_of_words_does_not_train(self):
        model = Classifier(small_body(), 2)
        groups = model.groups(1e-3, decay=0.5)
        assert [g["lr"] for g in groups] == [1e-3, 5e-4, 2.5e-4, 1.25e-4]
        trained = {id(p) for g in groups for p in g["params"]}
        assert id(model.body.head.weight) not in trained
        assert len(trained) == len(list(model.parameters())) - 1
        muon = fine_tuner(model, 0.02, decay=0.5).param_groups
        assert [g["lr"] for g in muon] == [0.02, 0.01, 0.006, 0.0015]
        assert {id(p) for g in muon for p in g["params"]} == trained

    def test_one_class_is_refused(self):
        with pytest.raises(ValueError, match="two classes or more, got 1"):
            Classifier(small_body(), 1)

    def test_it_learns_what_words_settle_and_predictions_keep_the_order(self, tokenizer):
        train, test = (made_up(n, s).encode(tokenizer, 16) for n, s in ((200, 1), (100, 2)))
        model = Classifier(small_body(tokenizer.vocab_size), 2)
        run = Run(
            model,
            TextBatches(train, 16),
            fine_tuner(model, 0.01),
            loss=classification_loss,
            device=CPU,
            evaluate=Scores(test),
            evaluate_every=60,
        )
        *_, last = run.train(60)
        assert last.held_out["accuracy"] > 0.95 and last.held_out["macro_f1"] > 0.95
        model.eval()
        alone = [model(torch.from_numpy(ids)[None], torch.tensor([len(ids)])) for ids in test.ids]
        reference = torch.cat(alone).detach().numpy()
        np.testing.assert_allclose(predict(model, test, CPU), reference, rtol=1e-4, atol=1e-4)


class TestLoRA:
    def test_it_changes_nothing_at_first_and_leaves_what_it_wraps_frozen(self):
        body = small_body()
        wrapped = copy.deepcopy(body)
        add_lora(wrapped, rank=2)
        tokens = torch.randint(300, (2, 9))
        torch.testing.assert_close(wrapped.features(tokens), body.features(tokens))
        trains = [name for name, p in wrapped.named_parameters() if p.requires_grad]
        assert len(trains) == 2 * 4 * 2
        assert all(".down.weight" in name or ".up.weight" in name for name in trains)

    def test_merging_gives_the_same_layer(self):
        layer = LoRA(nn.Linear(6, 5, bias=False), rank=2, scale=3.0)
        nn.init.normal_(layer.up.weight)
        x = torch.randn(4, 6)
        torch.testing.assert_close(layer(x), x @ layer.merged().T)
        assert torch.linalg.matrix_rank(layer.merged() - layer.linear.weight) == 2

    def test_a_rank_beyond_the_matrix_is_refused(self):
        with pytest.raises(ValueError, match="rank must lie in 1 to 5, got 6"):
            LoRA(nn.Linear(6, 5), rank=6)


class TestBaselines:
    def test_the_majority_is_the_commonest_class_of_the_training_texts(self):
        train = Texts.of(["a", "b", "c"], ["tool", "tool", "animal"], CLASSES)
        assert (majority(train, made_up(4)) == 1).all()

    @pytest.mark.parametrize("kind", ["naive bayes", "regression"])
    def test_a_bag_of_words_reads_words(self, kind):
        model = bag_of_words(kind, made_up(100, 1), made_up(50, 2))
        test = made_up(50, 3)
        assert (model.predict(test.texts) == test.labels).mean() > 0.95

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(ValueError, match="'naive bayes' or 'regression', got 'magic'"):
            bag_of_words("magic", made_up(9), made_up(9))
