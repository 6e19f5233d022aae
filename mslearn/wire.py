"""What the grader and a learner's answers say to each other: JSON and raw bytes, never pickle.

A message is a JSON object and a list of byte strings, each with its length before it. Plain values
travel whole: numbers, text, bytes, lists, tuples, sets, dicts, tensors, arrays, generators, dtypes.
Anything else stays where it is, and a number that stands for it travels.
"""

import json
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

MAX_JSON, MAX_BYTES, MAX_BLOBS, MAX_DEPTH = 8 << 20, 64 << 20, 10_000, 50
HEAD = struct.Struct("<III")  # bytes of JSON, number of byte strings, their bytes together
PLAIN = (type(None), bool, int, float, str)
NAMES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"
DTYPES = {name: getattr(torch, name) for name in NAMES.split()}
KINDS: dict[type, str] = {list: "list", tuple: "tuple", set: "set", frozenset: "set"}
MAKE: dict[str, type] = {"list": list, "tuple": tuple, "set": set}
Node = Any  # what JSON can say: a plain value, or [kind, ...]


class WireError(Exception):
    """A value that cannot be sent, or a message that makes no sense."""


def write(stream: BinaryIO, message: dict[str, Any], blobs: list[bytes]) -> None:
    """Send one message; raises WireError when it is too large."""
    text = json.dumps(message).encode()
    total = sum(map(len, blobs))
    if len(text) > MAX_JSON or total > MAX_BYTES or len(blobs) > MAX_BLOBS:
        raise WireError(
            f"{(len(text) + total) / 2**20:.0f} MB are too much to hand over; the limit is "
            f"{MAX_BYTES >> 20} MB in tensors and text, {MAX_JSON >> 20} MB in lists"
        )
    lengths = struct.pack(f"<{len(blobs)}I", *map(len, blobs))
    stream.write(b"".join([HEAD.pack(len(text), len(blobs), total), lengths, text, *blobs]))
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one message. Raises EOFError at the end, WireError when it makes no sense.

    Nothing is read, and no memory taken, for a message that says it is over the limits.
    """
    size, number, total = HEAD.unpack(_exactly(stream, HEAD.size))
    if size > MAX_JSON or number > MAX_BLOBS or total > MAX_BYTES:
        raise WireError("a message over the limits")
    lengths = struct.unpack(f"<{number}I", _exactly(stream, 4 * number))
    if sum(lengths) != total:
        raise WireError("lengths that do not add up")
    try:
        message = json.loads(_exactly(stream, size))
    except (ValueError, RecursionError) as error:
        raise WireError("a message that is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("a message that is not an object")
    return message, [_exactly(stream, length) for length in lengths]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    got = stream.read(size)
    if len(got) < size:
        raise EOFError
    return got


def pack(value: Any, blobs: list[bytes], other: Callable[[Any], Node], depth: int = 0) -> Node:
    """A value as JSON, its bytes appended to `blobs`; `other` says what is not plain."""
    if depth > MAX_DEPTH:
        raise WireError(f"lists within lists more than {MAX_DEPTH} deep cannot be handed over")
    kind = type(value)  # exactly this type: a subclass may say anything of itself
    if kind in PLAIN:
        return value
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return _pack_tensor(value, blobs)
    if kind in KINDS:
        return [KINDS[kind], [pack(each, blobs, other, depth + 1) for each in value]]
    if kind is dict:
        pairs = value.items()
        return ["dict", [[pack(each, blobs, other, depth + 1) for each in pair] for pair in pairs]]
    if kind is bytes:
        return ["bytes", _keep(value, blobs)]
    if kind is np.ndarray and value.dtype.kind in "biufc":
        return ["array", value.dtype.str, list(value.shape), _keep(value.tobytes(), blobs)]
    if isinstance(value, np.generic):
        return pack(value.item(), blobs, other, depth + 1)
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind is torch.dtype and str(value)[6:] in DTYPES:
        return ["dtype", str(value)[6:]]
    if kind is torch.Generator:
        return ["generator", _keep(value.get_state().numpy().tobytes(), blobs)]
    if isinstance(value, torch.Tensor):
        raise WireError(f"expected a plain torch.Tensor, got its subclass {kind.__name__}")
    return other(value)


def _pack_tensor(tensor: torch.Tensor, blobs: list[bytes]) -> Node:
    plain = tensor.detach().cpu().contiguous()
    name = str(plain.dtype)[6:]
    if name not in DTYPES:
        raise WireError(f"a tensor of {name} cannot be handed over; use one of {NAMES}")
    raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return ["tensor", name, list(plain.shape), _keep(raw, blobs), tensor.requires_grad]


def _keep(raw: bytes, blobs: list[bytes]) -> int:
    blobs.append(raw)
    return len(blobs) - 1


def unpack(node: Node, blobs: list[bytes], other: Callable[[list], Any], depth: int = 0) -> Any:
    """The value of a node; `other` finds what stands for something that is not plain.

    Raises WireError for anything that `pack` would not have written.
    """
    if type(node) in PLAIN:
        return node
    if type(node) is not list or not node or depth > MAX_DEPTH:
        raise WireError("a value that makes no sense")
    try:
        kind, *rest = node
        if kind in MAKE:
            return MAKE[kind](unpack(each, blobs, other, depth + 1) for each in rest[0])
        if kind == "dict":
            pairs = ([unpack(each, blobs, other, depth + 1) for each in pair] for pair in rest[0])
            return dict(pairs)
        if kind == "bytes":
            return _blob(rest[0], blobs)
        if kind == "tensor":
            name, shape, index, needs_grad = rest
            tensor = _unpack_tensor(DTYPES[name], shape, _blob(index, blobs))
            return tensor.requires_grad_(needs_grad is True and tensor.is_floating_point())
        if kind == "array":
            name, shape, index = rest
            return _unpack_array(np.dtype(name), shape, _blob(index, blobs))
        if kind == "complex":
            return complex(*rest)
        if kind == "dtype":
            return DTYPES[rest[0]]
        if kind == "generator":
            state = torch.frombuffer(bytearray(_blob(rest[0], blobs)), dtype=torch.uint8)
            generator = torch.Generator()
            generator.set_state(state)
            return generator
        return other(node)
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError, OverflowError) as error:
        raise WireError("a value that makes no sense") from error


def _blob(index: Any, blobs: list[bytes]) -> bytes:
    if type(index) is not int or not 0 <= index < len(blobs):
        raise WireError("bytes that were not sent")
    return blobs[index]


def _shape(shape: Any, itemsize: int, raw: bytes) -> list[int]:
    if type(shape) is not list or any(type(n) is not int or n < 0 for n in shape[:33]):
        raise WireError("a shape that makes no sense")
    size = itemsize
    for n in shape:
        size *= n
    if size != len(raw) or len(shape) > 32 or any(n > MAX_BYTES for n in shape):
        raise WireError("a shape that its bytes do not fill")
    return shape


def _unpack_tensor(dtype: torch.dtype, shape: Any, raw: bytes) -> torch.Tensor:
    sizes = _shape(shape, dtype.itemsize, raw)
    if not raw:
        return torch.empty(sizes, dtype=dtype)
    flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    if dtype == torch.bool:  # any other byte than 0 and 1 would be neither true nor false
        return (flat != 0).reshape(sizes)
    return flat.view(dtype).reshape(sizes).clone()


def _unpack_array(dtype: np.dtype, shape: Any, raw: bytes) -> np.ndarray:
    if dtype.kind not in "biufc":
        raise WireError("an array of something else than numbers")
    flat = np.frombuffer(raw, dtype=np.uint8 if dtype.kind == "b" else dtype)
    array = flat.reshape(_shape(shape, dtype.itemsize, raw))
    return array != 0 if dtype.kind == "b" else array.copy()


def carry_over(ours: Any, theirs: Any) -> None:
    """Make our arguments what the worker's copies have become in place."""
    if isinstance(ours, list) and isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=False):
            carry_over(one, other)
        kept = [a if _mutable(a, b) else b for a, b in zip(ours, theirs, strict=False)]
        ours[:] = kept + theirs[len(kept) :]
    elif isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            carry_over(ours[key], theirs[key])
        kept = {k: ours[k] if k in ours and _mutable(ours[k], v) else v for k, v in theirs.items()}
        ours.clear()
        ours.update(kept)
    elif isinstance(ours, torch.Generator) and isinstance(theirs, torch.Generator):
        ours.set_state(theirs.get_state())
    elif isinstance(ours, torch.Tensor) and _mutable(ours, theirs):
        with torch.no_grad():
            ours.copy_(theirs)
    elif isinstance(ours, np.ndarray) and _mutable(ours, theirs):
        ours[...] = theirs


def _mutable(ours: Any, theirs: Any) -> bool:
    """Whether ours was changed in place, and so stays the same object, or replaced."""
    if isinstance(ours, torch.Tensor | np.ndarray) and type(theirs) is type(ours):
        return ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return type(ours) is type(theirs) and isinstance(ours, list | dict | torch.Generator)
