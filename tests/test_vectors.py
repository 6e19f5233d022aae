"""Words become vectors as the formulas say, and what cannot work is said in a sentence."""

import pytest
import torch

from mslearn import embeddings, word_vectors
from mslearn.data import load
from mslearn.documents import Document
from mslearn.likeness import PAIRS, Space, chance_purity, titles
from mslearn.store import load_result
from mslearn.vectors import (
    GloVe,
    SkipGram,
    cooccurrence,
    factor,
    glove_loss,
    negative_sampling,
    ppmi,
)
from mslearn.vocabulary import Text, Vocabulary, words

SAID = ["the cat saw the dog", "the dog saw a bird", "a cat"]
TEXTS = [words(each) for each in SAID]


@pytest.fixture
def text() -> Text:
    return Text.of(TEXTS, Vocabulary.of(TEXTS, 1))


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


class TestVocabulary:
    def test_words_are_runs_of_letters_of_any_script_in_lower_case(self):
        assert words("Zoë's 2nd São-Paulo, 東京!") == ["zoë", "s", "nd", "são", "paulo", "東京"]

    def test_the_most_frequent_words_come_first_with_their_counts(self, text):
        assert text.vocabulary.names[0] == "the" and text.vocabulary.counts.tolist()[0] == 3
        assert text.vocabulary.counts.sum() == len(text.ids) == 12

    def test_a_word_that_is_not_there_is_met_with_the_nearest_spellings(self, text):
        with pytest.raises(KeyError, match="'caat' is not among the 6 words: did you mean 'cat'"):
            text.vocabulary.number("caat")
        with pytest.raises(KeyError, match="no word is spelt like it"):
            text.vocabulary.number("xyzzy")

    def test_texts_without_words_are_refused(self):
        with pytest.raises(ValueError, match="hold no words"):
            Vocabulary.of([[], []])

    @pytest.mark.parametrize(
        ("least", "said"),
        [(0, "min_count must be at least 1, got 0"), (4, "'the', occurs 3 times: lower min_count")],
    )
    def test_a_min_count_that_leaves_nothing_is_refused(self, least, said):
        with pytest.raises(ValueError, match=said):
            Vocabulary.of(TEXTS, least)

    def test_a_text_in_other_words_is_refused(self, text):
        with pytest.raises(ValueError, match="hold none of the 6 words"):
            Text.of([["quite", "different"]], text.vocabulary)


class TestPairs:
    def test_no_pair_reaches_over_the_end_of_a_document(self, text):
        number = text.vocabulary.number
        found = set(zip(*(each.tolist() for each in text.pairs(99)), strict=True))
        assert (number("cat"), number("dog")) in found
        assert (number("cat"), number("bird")) not in found

    def test_the_table_of_counts_is_the_pairs_added_up(self, text):
        w, c = text.pairs(2)
        table = torch.zeros(6, 6).index_put_((w, c), torch.ones(()), accumulate=True)
        assert torch.equal(torch.from_numpy(cooccurrence(text, 2).toarray()), table)

    def test_a_weight_by_distance_counts_far_pairs_less(self, text):
        near, far = cooccurrence(text, 1), cooccurrence(text, 2, lambda distance: 1 / distance)
        assert far.sum() == near.sum() + (cooccurrence(text, 2).sum() - near.sum()) / 2

    def test_a_drawn_reach_leaves_out_far_pairs_only(self, text):
        generator = torch.Generator().manual_seed(0)
        assert len(text.pairs(1, generator)[0]) == len(text.pairs(1)[0])
        assert len(text.pairs(4, generator)[0]) < len(text.pairs(4)[0])

    @pytest.mark.parametrize("window", [0, -3])
    def test_a_window_without_pairs_is_refused(self, text, window):
        with pytest.raises(ValueError, match=f"reaches 1 place or more, got {window}"):
            text.pairs(window)
        with pytest.raises(ValueError, match=f"reaches 1 place or more, got {window}"):
            cooccurrence(text, window)

    def test_thinning_keeps_rare_words_and_the_root_of_frequent_ones(self):
        texts = [["often"] * 9_999 + ["rare"]] * 4
        text = Text.of(texts, Vocabulary.of(texts, 1))
        thin = text.thinned(1e-3, torch.Generator().manual_seed(0))
        rare, often = (thin.ids == 1).sum(), (thin.ids == 0).sum()
        assert rare == 4
        assert often == pytest.approx(40_000 * 1e-3**0.5, rel=0.1)

    def test_a_threshold_of_nothing_is_refused(self, text):
        with pytest.raises(ValueError, match="above 0, got 0"):
            text.thinned(0, torch.Generator())


class TestTraining:
    def test_gradients_of_skip_gram_are_those_of_autograd(self):
        given = drawn(7, 4), drawn(7, 4), drawn(3, 4)
        loss, *ours = negative_sampling(*given, k=5)
        for mine, theirs in zip(ours, torch.autograd.grad(loss, given), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-12)

    def test_gradients_of_glove_are_those_of_autograd(self):
        given = drawn(4, 3), drawn(6, 3), drawn(4), drawn(6)
        counts = torch.arange(24, dtype=torch.float64).view(4, 6)  # one of them 0
        loss, *ours = glove_loss(*given, counts, x_max=10)
        for mine, theirs in zip(ours, torch.autograd.grad(loss, given), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-12)

    def test_a_table_of_low_rank_is_found_again(self):
        from scipy.sparse import csr_array

        half = drawn(30, 3).detach().float()
        table = half @ half.T
        found = factor(csr_array(table.numpy()), 3)
        assert torch.allclose(found @ found.T, table, atol=1e-4)

    def test_ppmi_is_nowhere_negative_and_nothing_where_nothing_was_counted(self, text):
        counts = cooccurrence(text, 2)
        table = ppmi(counts)
        assert (table.toarray() >= 0).all() and (table.toarray()[counts.toarray() == 0] == 0).all()
        assert table.max() > 0

    def test_skip_gram_brings_words_of_the_same_company_together(self):
        g = torch.Generator().manual_seed(0)
        sets = [["red", "blue", "green", "paint"], ["one", "two", "three", "count"]]
        texts = [
            [sets[i % 2][j] for j in torch.randint(4, (12,), generator=g).tolist()]
            for i in range(200)
        ]
        text = Text.of(texts, Vocabulary.of(texts, 1))
        chosen = SkipGram(d=4, threshold=1.0, passes=10, batch=256)
        for table in (
            chosen.train(text)[0],
            GloVe(d=4, passes=200).train(cooccurrence(text, 3))[0],
        ):
            near = {word for word, _ in Space(text.vocabulary, table).neighbours("red", 3)}
            assert near == {"blue", "green", "paint"}

    def test_the_same_seed_gives_the_same_vectors(self, text):
        first, second = (SkipGram(d=3, batch=8).train(text, seed=4)[0] for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, SkipGram(d=3, batch=8).train(text, seed=5)[0])

    @pytest.mark.parametrize("d", [0, 7])
    def test_more_numbers_than_words_are_refused(self, text, d):
        for work in (
            lambda: SkipGram(d=d).train(text),
            lambda: GloVe(d=d).train(cooccurrence(text, 1)),
            lambda: factor(cooccurrence(text, 1), d),
        ):
            with pytest.raises(ValueError, match=f"6 words have 1 to 6 numbers each, got d={d}"):
                work()


class TestSpace:
    @pytest.fixture
    def grid(self) -> Space:
        """Capitals as their countries with one coordinate moved, and a word apart."""
        pairs = [pair.split() for pair in PAIRS["capital"].split(",")[:5]]
        names = [word for pair in pairs for word in pair] + ["stone"]
        table = torch.zeros(len(names), 8)
        for row, name in enumerate(names[:-1]):
            table[row, row // 2] = 1.0
            table[row, 6] = float(name == pairs[row // 2][1])
        table[-1, 7] = 1.0
        return Space(Vocabulary(tuple(names), torch.ones(len(names))), table)

    def test_offsets_that_are_equal_solve_every_analogy(self, grid):
        assert grid.analogies("capital").tolist() == [1.0] * 5
        assert grid.analogy("france", "paris", "italy", 1)[0][0] == "rome"

    def test_the_lazy_answer_needs_no_offset(self, grid):
        assert grid.analogies("capital", offset=False).tolist() == [1.0] * 5
        grid.table[:-1:2, 6], grid.table[1:-1:2, 6] = 5.0, 0.0  # countries all alike
        apart = Space(grid.vocabulary, grid.table)
        assert apart.analogies("capital", offset=False).max() == 0.0

    def test_a_word_is_never_its_own_neighbour_nor_an_answer(self, grid):
        assert "france" not in dict(grid.neighbours("france", 99))
        assert not {"france", "paris", "italy"} & set(
            dict(grid.analogy("france", "paris", "italy"))
        )

    def test_words_grouped_by_topic_are_pure_and_mixed_ones_are_not(self, grid):
        by_pair = {name: str(row // 2) for row, name in enumerate(grid.vocabulary.names[:-1])}
        assert grid.purity(by_pair, n=1).tolist() == [1.0] * 10
        by_side = {name: str(row % 2) for row, name in enumerate(grid.vocabulary.names[:-1])}
        assert grid.purity(by_side, n=1).max() == 0.0
        assert chance_purity(by_side) == pytest.approx(4 / 9)

    def test_titles_are_whole_titles_of_labelled_articles(self, grid):
        def article(title, label):
            return Document(title, title, title, label)

        found = titles(
            [article("Paris", "Geography"), article("Rome", None), article("Paris Rome", "Arts")],
            grid.vocabulary,
        )
        assert found == {"paris": "Geography"}

    def test_an_unknown_kind_of_pairs_names_those_there_are(self, grid):
        with pytest.raises(ValueError, match="no pairs 'colour': choose one of capital"):
            grid.analogies("colour")


class TestExperiments:
    def test_every_cell_is_stored_with_three_seeds_and_the_texts_that_are_here(self):
        names = [f"{method}/{seed}" for method in word_vectors.METHODS for seed in range(3)]
        assert set(names) <= load_result("word_vectors")["cells"].keys()
        for kind in embeddings.KINDS:
            for what in ("language", *(f"topics/{n}" for n in embeddings.LABELS)):
                for seed in range(3):
                    cell = load_result("embeddings")["cells"][f"{what}/{kind}/{seed}"]
                    assert cell["settings"]["texts"] == load("wiki").sha256[:16]

    def test_counting_has_the_purest_neighbours_with_every_seed(self):
        cells = load_result("word_vectors")["cells"]
        best = min(cells[f"counts/{seed}"]["purity"] for seed in range(3))
        others = (name for name in cells if not name.startswith("counts"))
        assert best > max(cells[name]["purity"] for name in others) + 0.05

    def test_vectors_help_with_few_labels_and_frozen_ones_harm_with_many(self):
        cells = load_result("embeddings")["cells"]

        def scores(labels, kind):
            return [cells[f"topics/{labels}/{kind}/{seed}"]["accuracy"] for seed in range(3)]

        def loss(kind, step):
            return [cells[f"language/{kind}/{seed}"]["nats"][step] for seed in range(3)]

        assert min(scores(100, "warm") + scores(100, "frozen")) > max(scores(100, "learned"))
        assert max(scores(7296, "frozen")) < min(scores(7296, "learned")) - 0.05
        assert max(loss("frozen", "10")) < min(loss("learned", "10"))
        assert min(loss("frozen", "60")) > max(loss("learned", "60"))

    def test_counts_run_again_give_what_is_stored(self):
        stored = load_result("word_vectors")["cells"]["counts/1"]
        again = word_vectors.scores(word_vectors.table_of("counts", 1))
        assert again["purity"] == pytest.approx(stored["purity"], abs=0.02)
        assert again["analogies"] == pytest.approx(stored["analogies"], abs=0.03)

    def test_a_classifier_run_again_gives_what_is_stored(self):
        stored = load_result("embeddings")["cells"]["topics/100/learned/1"]
        again = embeddings.classify("learned", 100, 1, stored["settings"]["lr"], "test")
        assert again["accuracy"] == pytest.approx(stored["accuracy"], abs=0.03)

    def test_a_language_model_run_again_begins_as_stored(self):
        stored = load_result("embeddings")["cells"]["language/random/0"]
        first = embeddings.MARKS[0]
        again = embeddings.language("random", 0, stored["settings"]["size"], "test", steps=first)
        assert again["nats"][str(first)] == pytest.approx(stored["nats"][str(first)], abs=0.05)

    def test_an_unknown_method_or_beginning_names_those_there_are(self):
        with pytest.raises(ValueError, match="no method 'lsa': choose one of counts"):
            word_vectors.table_of("lsa", 0)
        with pytest.raises(ValueError, match="no beginning 'hot': choose one of learned"):
            embeddings.prepare(torch.nn.Embedding(2, 2), "hot", 1.0, 0)

    def test_without_gensim_its_cells_are_left_out_with_a_sentence(self, tmp_path, capsys):
        from mslearn.store import Store

        store = Store(tmp_path / "result.json", seeds=(0,), only="gensim/*")
        try:
            import gensim  # noqa: F401
        except ModuleNotFoundError:
            word_vectors.experiment(store)
            assert "gensim/0 left out: No module named 'gensim'" in capsys.readouterr().out
            assert store.cells() == {}
        else:
            pytest.skip("gensim is here, so nothing is left out")
