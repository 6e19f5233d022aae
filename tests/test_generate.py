"""Generation: the cache changes nothing but the time, and the settings do what they say."""

import pytest
import torch

from mslearn.bpe import BPE
from mslearn.generate import OneAtATime, choose, generate, sample_text
from mslearn.transformer import Config, Transformer


@pytest.fixture
def model() -> Transformer:
    """A model whose every weight matters: a fresh one adds nothing to its residual stream."""
    torch.manual_seed(0)
    model = Transformer(Config(vocab_size=40, context=16, n_layers=2, n_heads=2, d_model=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cache_changes_no_token_even_past_the_context(model, temperature):
    settings = dict(temperature=temperature, seed=3)
    cached = generate(model, [1, 2, 3], 60, cache=True, **settings)
    assert cached == generate(model, [1, 2, 3], 60, cache=False, **settings)
    assert len(cached) == 60


def test_one_position_at_a_time_gives_the_logits_of_the_whole_text(model):
    tokens = torch.arange(3, 15)
    step, cache = OneAtATime(model), model.new_cache()
    with torch.no_grad():
        logits = torch.stack([step(token, cache) for token in tokens.tolist()])
        torch.testing.assert_close(logits, model(tokens[None])[0], rtol=1e-10, atol=1e-10)
    assert cache.length == len(tokens)


def test_greedy_takes_the_likeliest_token_each_time(model):
    tokens = [5]
    for _ in range(10):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert generate(model, [5], 10, temperature=0) == tokens[1:]


def test_same_seed_same_text_other_seed_other_text(model):
    first, again, other = (generate(model, [1], 30, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_prompt_longer_than_the_context_is_read_from_its_end(model):
    long = list(range(40))
    assert generate(model, long, 5, temperature=0) == generate(model, long[-16:], 5, temperature=0)


def test_generation_ends_at_the_stop_token_and_leaves_it_out(model):
    free = generate(model, [1], 30, seed=0)
    stopped = generate(model, [1], 30, seed=0, stop=free[7])
    assert stopped == free[: free.index(free[7])]


def test_the_model_is_left_as_it_was(model):
    model.train()
    generate(model, [1], 3)
    assert model.training


def drawn(**settings) -> torch.Tensor:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    generator = torch.Generator().manual_seed(0)
    ids = [choose(logits, generator, **settings) for _ in range(4000)]
    return torch.bincount(torch.tensor(ids), minlength=4) / len(ids)


def test_tokens_come_up_as_often_as_their_probabilities_say():
    torch.testing.assert_close(drawn(), torch.tensor([0.1, 0.4, 0.2, 0.3]), atol=0.03, rtol=0)


def test_temperature_sharpens_by_the_power_of_its_inverse():
    powers = torch.tensor([0.1, 0.4, 0.2, 0.3]) ** 2
    torch.testing.assert_close(drawn(temperature=0.5), powers / powers.sum(), atol=0.03, rtol=0)


def test_top_k_keeps_the_k_likeliest():
    expected = torch.tensor([0.0, 4 / 7, 0.0, 3 / 7])
    torch.testing.assert_close(drawn(top_k=2), expected, atol=0.03, rtol=0)


def test_top_p_keeps_the_fewest_that_reach_p():
    expected = torch.tensor([0.0, 4 / 9, 2 / 9, 3 / 9])
    torch.testing.assert_close(drawn(top_p=0.75), expected, atol=0.03, rtol=0)
    assert drawn(top_p=0.01)[1] == 1


@pytest.mark.parametrize(
    ("tokens", "settings", "sentence"),
    [
        ([], {}, "the prompt is empty"),
        ([1], {"temperature": -1.0}, "must not be negative"),
        ([1], {"top_k": 0}, "at least 1 token"),
        ([1], {"top_p": 1.5}, "a probability"),
    ],
)
def test_bad_settings_get_one_sentence(model, tokens, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(model, tokens, 5, **settings)


def test_text_goes_in_and_comes_out():
    tokenizer = BPE.train(["a small text, a small text"], 270)
    torch.manual_seed(0)
    model = Transformer(Config(tokenizer.vocab_size, 32, 1, 2, 16))
    text = sample_text(model, tokenizer, "a small", 12, stop=None)
    assert text.startswith("a small")
    assert len(text) > len("a small")
    assert isinstance(sample_text(model, tokenizer, "", 3), str)
