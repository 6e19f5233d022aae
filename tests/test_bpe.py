"""Byte-level BPE: the `tokenizers` library is the oracle, and nothing is ever lost."""

import json
import random
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from mslearn.bench_bpe import trained_by_the_library as reference
from mslearn.bpe import BPE, SYMBOLS
from mslearn.merges import WORDS

END = "<|end|>"
ODD = [
    "Don't say we'll; they've, I'm, he'd.  Two  spaces\n\n\tand\r\n a tab ",
    "学习语言模型。汉字学习,语言学习!",
    "naïve café Ελληνικά Русский हिन्दी العربية 한국어 日本語です",
    "👩‍👩‍👧 🙂🙂🙂 e\u0301 \u200b\u00a0\u3000x ½ ٣ x² 2024 007",
    f"the mark {END} in a text, aaaaaaaaaa ababababab \x00\x1c\x85",
    "",
]


def zipfian_texts(n_texts: int = 400, seed: int = 0) -> list[str]:
    """Texts of made-up words whose frequencies fall as 1 / rank, with odd ones among them."""
    rng = random.Random(seed)
    syllables = ["ka", "lo", "mi", "the", "ing", "er", "st", "qu", "é", "学", "ß", "n't", "-", "7"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, 3001)]
    texts = [" ".join(rng.choices(words, weights, k=50)) + "." for _ in range(n_texts)]
    return texts + ODD


def saved_model(tokenizer: BPE, path) -> dict:
    tokenizer.save(path)
    return json.loads(path.read_text(encoding="utf-8"))["model"]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return zipfian_texts()


@pytest.fixture(scope="module")
def ours(texts) -> BPE:
    return BPE.train(texts, 1000)


@pytest.mark.parametrize("special", [(END,), (), (END, "<|user|>", "<|model|>")])
def test_vocabulary_and_merges_are_those_of_tokenizers(texts, special, tmp_path):
    theirs = json.loads(reference(texts, 1000, special).to_str())["model"]
    trained = BPE.train(texts, 1000, special)
    mine = saved_model(trained, tmp_path / "tokenizer.json")
    assert trained.vocab_size == 1000 and len(trained.merges) >= 1000 - 256 - len(special)
    assert mine["vocab"] == theirs["vocab"]
    assert mine["merges"] == theirs["merges"]


@pytest.mark.parametrize("seed", range(40))
def test_ties_overlaps_and_shared_symbols_go_as_in_tokenizers(seed, tmp_path):
    """Few letters and few texts make many ties, and many ways to the same bytes."""
    rng = random.Random(seed)
    alphabet = rng.choice(["ab", "abc", "ab é", "一二三 a", "aaab'st "])

    def some_text() -> str:
        return "".join(rng.choices(alphabet, k=rng.randint(1, 60)))

    corpus = [some_text() for _ in range(rng.randint(1, 30))]
    size = 257 + rng.choice([5, 50, 400])
    theirs, trained = reference(corpus, size), BPE.train(corpus, size)
    mine, expected = saved_model(trained, tmp_path / "t.json"), json.loads(theirs.to_str())["model"]
    assert (mine["vocab"], mine["merges"]) == (expected["vocab"], expected["merges"])
    for text in (some_text() for _ in range(20)):
        assert trained.encode(text) == theirs.encode(text).ids


def test_ids_are_those_of_tokenizers_on_text_not_trained_on(ours, tmp_path):
    ours.save(tmp_path / "tokenizer.json")
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True
    for text in zipfian_texts(100, seed=1):
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == text == theirs.decode(ids, skip_special_tokens=False)


def test_words_are_cut_as_tokenizers_cuts_them_in_every_old_character():
    """Characters younger than Unicode 14 may be letters to one library and not yet to the other."""
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    known = [c for c in map(chr, range(0x30000)) if unicodedata.category(c) not in ("Cn", "Cs")]
    for start in range(0, len(known), 100):
        text = "".join(f"a{c}1{c}! {c}{c}b" for c in known[start : start + 100])
        assert [m.span() for m in WORDS.finditer(text)] == [
            span for _, span in cut.pre_tokenize_str(text)
        ]


def test_special_tokens_come_first_then_the_bytes_in_the_order_of_their_symbols():
    trained = BPE.train(["x"], 260, (END, "<|pad|>"))
    assert trained.special == {END: 0, "<|pad|>": 1} and trained.end == 0
    assert trained.tokens[2:5] == [b"!", b'"', b"#"]
    assert [SYMBOLS[token[0]] for token in trained.tokens[2:]] == sorted(SYMBOLS)


def test_the_commonest_pair_is_merged_first_and_a_tie_goes_to_smaller_ids():
    """After `ab`, `cd` and the space before `ab` both occur twice, and the space has a high id."""
    assert BPE.train(["ab ab ab cd cd xy"], 259).tokens[257:] == [b"ab", b"cd"]


@given(st.text() | st.lists(st.sampled_from([*ODD, END, " ", "lo", "\n"])).map("".join))
def test_any_text_comes_back(ours, text):
    assert ours.decode(ours.encode(text)) == text
    assert ours.decode(ours.encode(text, allow_special=True)) == text
    assert ours.encode(text, allow_special=True).count(ours.end) == text.count(END)


@given(st.binary())
def test_any_bytes_come_back(ours, data):
    assert ours.decode_bytes(ours.encode_bytes(data)) == data


def test_the_end_mark_is_ordinary_text_unless_asked_for(ours):
    text = f"one{END}two"
    assert ours.end not in ours.encode(text)
    expected = [*ours.encode("one"), ours.end, *ours.encode("two")]
    assert ours.encode(text, allow_special=True) == expected
    assert ours.decode([ours.end]) == END
    nested = BPE.train(["x"], 300, ("<|a", "<|a|>"))
    assert nested.encode("<|a|><|a", allow_special=True) == [1, 0]


def test_a_saved_tokeniser_loads_equal(ours, tmp_path):
    ours.save(tmp_path / "tokenizer.json")
    loaded = BPE.load(tmp_path / "tokenizer.json")
    assert (loaded.tokens, loaded.merges) == (ours.tokens, ours.merges)
    assert (loaded.special, loaded.end) == (ours.special, ours.end)


def test_a_file_of_tokenizers_loads_with_its_ids(texts, tmp_path):
    theirs = reference(texts, 700)
    theirs.save(str(tmp_path / "tokenizer.json"))
    loaded = BPE.load(tmp_path / "tokenizer.json")
    assert all(loaded.encode(text) == theirs.encode(text).ids for text in texts if END not in text)


def test_a_file_with_its_special_token_last_loads_as_it_is(tmp_path):
    """GPT-2's own file is laid out so, and older files write a merge as one string."""
    old = reference(["ab ab"], 258, ())
    content = json.loads(old.to_str())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["added_tokens"] = [{"id": 258, "content": END, "special": True}]
    (tmp_path / "t.json").write_text(json.dumps(content))
    loaded = BPE.load(tmp_path / "t.json")
    assert (loaded.end, loaded.vocab_size) == (258, 259)
    assert loaded.encode("ab ab") == old.encode("ab ab").ids


def test_pieces_show_the_boundaries(ours):
    assert "".join(ours.pieces("the king's 7 loaves")) == "the king's 7 loaves"
    assert BPE.train(["x"], 257).pieces("aé") == ["a", "\\xc3", "\\xa9"]


def test_texts_are_read_once_and_one_at_a_time(texts, ours):
    assert BPE.train((text for text in texts), 1000).merges == ours.merges
    assert ours.encode_batch(texts[:3]) == [ours.encode(text) for text in texts[:3]]


def test_a_text_that_runs_out_of_pairs_gives_a_smaller_vocabulary():
    assert repr(BPE.train(["abc"], 5000)) == "BPE(vocab_size=259, merges=2, special=('<|end|>',))"


def test_one_endless_word_does_not_take_for_ever(ours):
    start = time.process_time()
    assert ours.decode(ours.encode("lo" * 50_000)) == "lo" * 50_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BPE.train(["a"], 256), "vocab_size=256; ask for 257 or more"),
        (lambda: BPE.train([], 300), "corpus is empty"),
        (lambda: BPE.train(["", ""], 300), "corpus is empty"),
        (lambda: BPE.train(["a"], 300, ("end",)), "'end' could be a word of the text"),
        (lambda: BPE.train(["a"], 300, (END, END)), "must differ"),
        (lambda: BPE.train(["a"], 300, ()).end, "no special token"),
        (lambda: BPE.train(["a"], 300).encode("a\ud800"), "half a surrogate pair"),
        (lambda: BPE.train(["a\ud800"], 300), "half a surrogate pair"),
        (lambda: BPE.train(["a"], 300).decode([0, 257]), "257 is not in 0 to 256"),
        (lambda: BPE.train(["a"], 300).decode([-1, 3]), "-1 is not in 0 to 256"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_one_text_in_place_of_several_is_refused():
    with pytest.raises(TypeError, match="pass \\[text\\]"):
        BPE.train("one text", 300)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.clear(),
        lambda content: content["pre_tokenizer"].update(type="Whitespace"),
        lambda content: content.update(pre_tokenizer=None),
        lambda content: content.update(normalizer={"type": "NFC"}),
        lambda content: content["model"].update(ignore_merges=True),
        lambda content: content["model"].pop("merges"),
        lambda content: content["model"]["merges"].append(["!", "~~"]),
        lambda content: content["model"]["vocab"].pop("!"),
    ],
)
def test_a_file_that_would_encode_otherwise_is_refused(spoil, ours, tmp_path):
    path = tmp_path / "tokenizer.json"
    ours.save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    spoil(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a byte-level BPE"):
        BPE.load(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"[1, 2]", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_tokenizer_is_refused(data, tmp_path):
    (tmp_path / "t.json").write_bytes(data)
    with pytest.raises(ValueError, match="is not a byte-level BPE"):
        BPE.load(tmp_path / "t.json")
