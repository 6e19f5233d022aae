"""A recipe from the texts to the finished folder; and the folder that is in the course."""

import dataclasses
import json

import pytest
import torch
from toys import CPU, same_weights

from mslearn import data, recipes
from mslearn.__main__ import main
from mslearn.checkpoint import load_model, verify
from mslearn.home import course
from mslearn.masking import MASK
from mslearn.recipes import RECIPES, Masked, Recipe, english_corpus, train

TINY = Recipe(
    steps=12, vocab_size=300, context=16, n_layers=1, n_heads=2, d_model=16, batch_size=4, warmup=2
)


@pytest.fixture
def english(tmp_path, monkeypatch):
    """Little text, and a learner's folder of its own."""
    texts = {s: [f"{s}: the cat sat on mat {i}." for i in range(90)] for s in ("train", "valid")}
    texts["test"] = [f"the last word on mat {i}." for i in range(90)]
    here = {name: data.load(name) for name in data.english_sets()}  # while they are here
    monkeypatch.setattr(data, "english", lambda: texts)
    monkeypatch.setattr(data, "load", here.get)
    monkeypatch.setenv("MSLEARN_HOME", str(tmp_path / "home"))
    return texts


def test_a_run_that_was_stopped_gives_the_same_model(english, tmp_path, monkeypatch):
    whole = train("whole", TINY, tmp_path / "whole", CPU)
    make_run = recipes.make_run

    def stopping(*arguments):
        run = make_run(*arguments)
        batches = run.batches

        class Stop:
            tokens_per_step = batches.tokens_per_step

            def __call__(self, step):
                if step == 7:
                    raise KeyboardInterrupt
                return batches(step)

        run.batches = Stop()
        return run

    monkeypatch.setattr(recipes, "make_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        train("parts", TINY, tmp_path / "parts", CPU, save_every=5)
    monkeypatch.setattr(recipes, "make_run", make_run)
    assert not (tmp_path / "parts").exists()
    torch.manual_seed(5)
    parts = train("parts", TINY, tmp_path / "parts", CPU, save_every=5)
    assert same_weights(load_model(whole)[0], load_model(parts)[0])
    logs = [(folder / "log.jsonl").read_text() for folder in (whole, parts)]
    assert logs[0] == logs[1]


def test_the_folder_says_how_it_was_made(english, tmp_path):
    folder = train("tiny", TINY, tmp_path / "tiny", CPU)
    model, tokenizer, about = load_model(folder)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12))
    assert rows[-1]["held_out"]["bits_per_byte"] > 0
    assert about["recipe"]["lr"] == TINY.lr and about["device"] == str(CPU)
    assert list(about["texts"]) == data.english_sets()
    assert about["versions"]["torch"] == torch.__version__
    assert about["tokens"]["seen"] == 12 * 4 * 16
    assert tokenizer.vocab_size == model.config.vocab_size == 300
    assert about["test"]["bits_per_byte"] != about["valid"]["bits_per_byte"]


def test_an_encoder_is_trained_by_the_same_command(english, tmp_path):
    recipe = Masked(**dataclasses.asdict(TINY), rate=0.3)
    folder = train("tiny-masked", recipe, tmp_path / "tiny", CPU)
    model, tokenizer, about = load_model(folder)
    assert not model.config.causal and model.config.vocab_size == tokenizer.vocab_size == 301
    assert tokenizer.special[MASK] == 300
    assert about["recipe"] == dataclasses.asdict(recipe)
    assert about["test"].keys() == {"bits_per_blank", "accuracy"}


def test_the_tokeniser_learns_from_the_training_split_alone(english):
    before = english_corpus(300)[0].tokenizer.merges
    english["valid"] = english["test"] = ["zzzz zzzz zzzz"] * 90
    assert english_corpus(300)[0].tokenizer.merges == before


def test_the_command_takes_another_length_and_folder(english, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "base", TINY)
    assert main(["train", "base", "--steps", "3", "--out", str(tmp_path / "x")]) == 0
    assert f"the model is in {tmp_path / 'x'}" in capsys.readouterr().out
    assert verify(tmp_path / "x")["recipe"]["steps"] == 3


@pytest.mark.parametrize("name", RECIPES)
class TestWhatIsInTheCourse:
    def test_it_is_whole_small_and_made_by_the_recipe_that_is_shipped(self, name):
        folder, recipe = course() / "checkpoints" / name, vars(RECIPES[name])
        assert verify(folder)["recipe"] == recipe
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * 2**20
        steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").open()]
        assert steps == list(range(recipe["steps"]))

    def test_it_was_made_from_the_texts_that_are_here(self, name):
        about = verify(course() / "checkpoints" / name)
        assert about["texts"] == {each: data.load(each).sha256 for each in data.english_sets()}

    def test_its_score_on_validation_texts_is_the_one_it_states(self, name):
        folder, recipe = course() / "checkpoints" / name, RECIPES[name]
        model, tokenizer, _ = load_model(folder)
        corpus, _ = english_corpus(recipe.vocab_size)
        assert corpus.tokenizer.merges == tokenizer.merges
        found = recipe.held_out(corpus.valid, max_tokens=64_000)(model.eval(), CPU)
        logged = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["held_out"]
        assert found.keys() == logged.keys()
        # The log is of the weights before they were rounded to bfloat16.
        assert found == pytest.approx(logged, abs=0.003 if name == "base" else 0.02)
