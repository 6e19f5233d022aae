"""What goes between the grader and the answers: whole, exact, within limits, and never a lie."""

import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mslearn import wire

FLOATS = st.floats(allow_nan=False)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | FLOATS | st.text() | st.binary()
KEYS = st.integers() | st.text() | FLOATS | st.booleans()


def nested(inner):
    return (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(st.integers())
    )


def refuse(value):
    raise wire.WireError(f"{type(value).__name__} is not plain")


def there_and_back(value):
    stream, blobs = io.BytesIO(), []
    wire.write(stream, {"value": wire.pack(value, blobs, refuse)}, blobs)
    stream.seek(0)
    message, received = wire.read(stream)
    return wire.unpack(message["value"], received, refuse)


def typed(value):
    """A value with the types of all that is in it."""
    if isinstance(value, list | tuple):
        return type(value), [typed(each) for each in value]
    if isinstance(value, dict):
        return dict, [(typed(k), typed(v)) for k, v in value.items()]
    return type(value), value


def message(*parts: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(parts))


@given(st.recursive(PLAIN, nested, max_leaves=20))
def test_plain_values_arrive_as_they_were_with_their_types(value):
    assert typed(there_and_back(value)) == typed(value)


@pytest.mark.parametrize("dtype", wire.DTYPES.values(), ids=wire.DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (2, 1, 3)], ids=str)
def test_tensors_arrive_bit_for_bit(dtype, shape):
    tensor = (10 * torch.randn(shape)).to(dtype)
    back = there_and_back(tensor)
    assert type(back) is torch.Tensor and back.dtype == dtype and back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_infinities_nans_and_gradients_asked_for_arrive():
    values = [math.inf, -math.inf, 1e308, 5e-324]
    assert there_and_back(values) == values and math.isnan(there_and_back(math.nan))
    tensor = torch.tensor([math.nan, math.inf], requires_grad=True)
    back = there_and_back(tensor)
    assert back.requires_grad and back.isnan().tolist() == [True, False]


def test_arrays_generators_and_dtypes_arrive():
    array = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(there_and_back(array), array)
    assert there_and_back(np.float32(0.5)) == 0.5
    assert there_and_back(torch.float16) is torch.float16
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(
        torch.rand(3, generator=there_and_back(generator)), torch.rand(3, generator=generator)
    )


class Liar(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2).as_subclass(Liar),
        type("Int", (int,), {})(3),
        type("List", (list,), {})([3]),
        object(),
        lambda: 0,
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        np.array([object()]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_exactly_a_plain_type_is_not_sent_as_one(value):
    with pytest.raises((wire.WireError, RuntimeError, NotImplementedError)):
        there_and_back(value)


def test_what_is_too_large_or_too_deep_is_not_sent(monkeypatch):
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(wire.WireError, match="too much to hand over"):
        there_and_back(torch.ones(1000))
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(wire.WireError, match="50 deep"):
        there_and_back(deep)


@pytest.mark.parametrize("head", [(2**31, 0, 0), (2, 2**31, 0), (2, 0, 2**31), (2, 1, 5)], ids=str)
def test_a_message_that_says_it_is_huge_is_refused_before_it_is_read(head):
    with pytest.raises((wire.WireError, EOFError)):
        wire.read(message(wire.HEAD.pack(*head), b"{}" + bytes(100)))


@pytest.mark.parametrize("text", [b"not json", b"[1]", b"[" * 100_000, b"\xff\xfe", b"3"])
def test_a_message_that_is_no_object_is_refused(text):
    with pytest.raises(wire.WireError):
        wire.read(message(wire.HEAD.pack(len(text), 0, 0), text))


def test_a_message_that_ends_early_is_the_end():
    with pytest.raises(EOFError):
        wire.read(message(wire.HEAD.pack(10, 0, 0), b"{"))


@pytest.mark.parametrize(
    "node",
    [
        ["tensor", "float32", [2], 0, False],
        ["tensor", "float32", [-1], 0, False],
        ["tensor", "float32", [2**40, 2**40], 0, False],
        ["tensor", "float32", [0, 2**62], 1, False],
        ["tensor", "object", [1], 0, False],
        ["tensor", "float32", [1], 7, False],
        ["tensor", "float32", [1], -1, False],
        ["tensor", "float32", "1", 0, False],
        ["tensor", "float32", [1] * 50, 0, False],
        ["array", "O", [1], 0],
        ["array", "<U4", [1], 0],
        ["array", "<f8,<f8", [1], 0],
        ["dict", [[["list", []], 1]]],
        ["dict", [[1]]],
        ["generator", 0],
        ["dtype", "nothing"],
        ["pickle", "gASV"],
        [["list"], 1],
        {"list": 1},
        [],
        ["list"],
    ],
    ids=json.dumps,
)
def test_a_value_that_an_honest_process_would_not_send_is_refused(node):
    with pytest.raises(wire.WireError):
        wire.unpack(node, [b"\0\0\0\0", b""], refuse)


def test_a_truth_value_is_true_or_false_whatever_its_byte():
    tensor = wire.unpack(["tensor", "bool", [3], 0, False], [b"\0\1\7"], refuse)
    assert tensor.tolist() == [False, True, True] and tensor.view(torch.uint8).max() == 1
    array = wire.unpack(["array", "|b1", [3], 0], [b"\0\1\7"], refuse)
    assert array.view(np.uint8).max() == 1


class TestCarriedOver:
    def test_what_a_call_changed_in_place_reaches_the_same_objects(self):
        tensor, array = torch.zeros(2), np.zeros(2)
        state = {"m": tensor, "step": 0, "gone": 1}
        ours = [[tensor, 5, "a"], state, array]
        wire.carry_over(
            ours,
            [[torch.ones(2), 6, "b", 7], {"m": torch.ones(2), "step": 1, "new": 2}, np.ones(2)],
        )
        assert ours[0][0] is tensor and tensor.tolist() == [1, 1]
        assert ours[0][1:] == [6, "b", 7]
        assert state["m"] is tensor and {**state, "m": 0} == {"m": 0, "step": 1, "new": 2}
        assert array.tolist() == [1, 1]

    def test_another_shape_replaces(self):
        ours = [torch.zeros(2)]
        wire.carry_over(ours, [torch.ones(3)])
        assert ours[0].tolist() == [1, 1, 1]
