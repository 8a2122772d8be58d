"""What each trait of a row claims, checked on numbers: every check gives the claims that do not hold."""

import operator
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx

from operator_samples import Call, name_of, tensors, x
from unbraid.errors import InexactError
from unbraid.freeze import freeze
from unbraid.graph import Graph, Segment, Stream, runnable
from unbraid.graph.operators import Attention, Frozen, Holds, Kind, Memory, Operator, Random
from unbraid.walk import run

aten = torch.ops.aten

# Affine by numbers, and left out of `affine`: where data stand in a place of weights, what is carried is a matrix that
# the data decide; a constant has nothing to carry; and where something is not finite, `nan_to_num` computes.
_WEIGHTS = {
    "linear": {1, 2}, "conv1d": {1, 2}, "conv2d": {1, 2}, "conv3d": {1, 2}, "convolution": {1, 2}, "conv_tbc": {1, 2},
    "_convolution": {1, 2}, "_convolution_mode": {1, 2}, "conv_transpose1d": {1, 2}, "conv_transpose2d": {1, 2},
    "conv_transpose3d": {1, 2}, "layer_norm": {2, 3}, "native_layer_norm": {2, 3}, "rms_norm": {2},
    "_fused_rms_norm": {2}, "group_norm": {2, 3}, "native_group_norm": {1, 2}, "instance_norm": {1, 2},
    "batch_norm": {1, 2, 3}, "_batch_norm_impl_index": {1, 2, 3}, "native_batch_norm": {1, 2, 3},
    "_native_batch_norm_legit": {1, 2, 3}, "_native_batch_norm_legit_functional": {1, 2, 3},
    "_native_batch_norm_legit_no_training": {1, 2, 3}, "bilinear": {2, 3}, "nan_to_num": {0}, "stft": {4},
    "lerp": {2}, "_weight_norm": {1}, "_weight_norm_interface": {1}, "threshold_backward": {0}, "copysign": {1},
    "scaled_dot_product_attention": {2}, "_scaled_dot_product_attention_math": {2},
    "_scaled_dot_product_flash_attention_for_cpu": {2}, "trapezoid": {1}, "cumulative_trapezoid": {1},
    "fractional_max_pool2d": {3}, "fractional_max_pool3d": {3}, "normal": {0}, "prelu": {1},
}  # fmt: skip
# No element of the result is made from two of one operand, and yet these count as mixing: windows, interpolation in any
# mode, outer products.
_NO_MIX = {
    "im2col",
    "outer",
    "ger",
    "kron",
    *(f"upsample_nearest{rank}d" for rank in (1, 2, 3)),
    *(f"_upsample_nearest_exact{rank}d" for rank in (1, 2)),
}


def faults(key: Any, row: Operator, call: Call) -> list[str]:
    """The claims of a row that do not hold at a call."""
    checks: list[Callable[[Any, Operator, Call], Iterator[str]]] = [
        _affine, _not_affine, _moves, _pointwise, _mixes, _takes, _writes, _sizes, _random, _channels,
        _attention, _memory, _own_memory, _shifts,
    ]  # fmt: skip
    return list(chain.from_iterable(check(key, row, call) for check in checks))


def _affine(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """f(a) + f(b) = f(a + b) + f(0) in each group, or with a scale or a choice held, which the frozen rule shows."""
    for group in row.affine:
        places = [place for place in group if place in _places(row, call)]
        if places and _additive(row, call, places) is (row.holds is not None):
            yield f"affine in {group}: {row.holds}"


def _not_affine(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """In other operands it is not affine, unless the list above says why they are left out."""
    if row.kind is Kind.MOVES or row.holds is Holds.CHOICE or name_of(key).endswith("_"):
        return
    for place in _places(row, call):
        left_out = place == row.sizes_of or place in _WEIGHTS.get(name_of(key), ())
        if not row.affine_in([place]) and not left_out and _additive(row, call, [place]):
            yield f"affine in {place}, which the row does not say"


def _moves(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """The result's values are the operand's, rearranged; of what picks, they are some of the operands' and zeros."""
    if row.kind not in (Kind.MOVES, Kind.PICKS) or not call.operands():
        return
    out = _elements(_flat(call(), whole=True))
    if row.kind is Kind.MOVES:
        if out != _elements(_flat(call.args[0], whole=True)):
            yield "moves"
        return
    read = {0.0, *(float(n) for n in call.args if isinstance(n, int | float))}
    for place in call.operands():
        read |= _elements(_flat(call.args[place], whole=True))
    if not out <= read:
        yield "picks"


def _takes(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """What takes or copies does with elements what it does with their numbers; a copy keeps their places."""
    value = _first(call.args[0]) if call.args else None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return
    numbers = torch.arange(value.numel()).view(value.shape)
    given = (numbers, *call.args[0][1:]) if isinstance(call.args[0], tuple) else numbers
    if row.copies or row.takes:
        out, places = _first(call()), _first(call({0: given})).to(torch.int64)
        if not torch.equal(value.flatten()[places], out) or (row.copies and not torch.equal(places, numbers)):
            yield "copies" if row.copies else "takes"


def _writes(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """What was written is read, by the reader, from the place where it was written, with the same other arguments."""
    if row.reader is None:
        return
    ((_, place),) = row.affine
    source = call.args[place].flatten()
    read = row.reader(call(), *call.args[1:place], *call.args[place + 1 :]).flatten()
    if not torch.equal(read, source[: len(read)]):
        yield "reader"


def _pointwise(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """The Jacobian is diagonal: one element of an operand changes the element at its place alone."""
    if row.kind is not Kind.POINTWISE:
        return
    for place in call.operands():
        value, before = call.args[place], _first(call())
        if not isinstance(before, Tensor) or before.shape != value.shape:
            continue  # spread over the others
        moved = value.clone()
        moved.view(-1)[1] = moved.view(-1)[1] * 0.5 + 0.2
        changed = (_first(call({place: moved})) != before).flatten().nonzero().flatten().tolist()
        if not set(changed) <= {1}:
            yield "pointwise"


def _mixes(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """Some element of the result depends on two elements of an operand."""
    if not row.mixing or not row.affine or name_of(key) in _NO_MIX or (row.kind is Kind.NORM and row.holds is None):
        return
    if max(_touching(row, call, group) for group in row.affine) < 2:
        yield "mixes"


def _touching(row: Operator, call: Call, group: tuple[int, ...]) -> int:
    """On how many elements of a group of operands an element of the result depends, at most."""
    before = _flat(_with(row, call, {}), whole=False)
    touched = torch.zeros(len(before))
    for place in set(group) & {*_places(row, call)}:
        value = _at(row, call, place)
        for element in range(min(value.numel(), 12)):
            one = torch.zeros(value.numel(), dtype=value.dtype)
            one[element] = 10
            results = [_with(row, call, {place: value + sign * one.view(value.shape)}) for sign in (1, -1)]
            changed = [_flat(result, whole=False) != before for result in results]
            touched += changed[0] | changed[1]
    return int(touched.max())


def _sizes(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """Of an argument that is asked for its sizes the values change nothing; of numbers that are sizes, they do."""
    empty = "empty" in name_of(key)
    if row.sizes_of is not None:
        value = call.args[row.sizes_of]
        results = [call({row.sizes_of: v.clone()}) for v in (value, value * 0.3 + 0.1)]
        if not (_shapes(results[0]) == _shapes(results[1]) if empty else _same(*results)):
            yield "sizes_of"
    numbers = [p for p, v in enumerate(call.args) if type(v) is int or (isinstance(v, list) and type(v[0]) is int)]
    if row.sized and numbers and all(_shapes(_grown(call, place)) == _shapes(call()) for place in numbers):
        yield "sized"


def _grown(call: Call, place: int) -> Any:
    """The result where the numbers at a place are larger by one."""
    number = call.args[place]
    return call({place: [n + 1 for n in number] if isinstance(number, list) else number + 1})


def _random(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """torch says the same; under two seeds two results differ, where an argument has to say so once it does."""
    tagged = isinstance(call.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in call.target.tags
    if tagged is not (row.random is not None):
        yield "random: torch says otherwise"
    one, two = _drawn(call, 1), _drawn(call, 2)
    if "empty" not in name_of(key) and _same(one, two) is (row.random not in (None, Random.SWITCHED)):
        yield "random"
    mean = {Random.STANDARD: 0.0, Random.UNIT: 0.5, Random.NORMAL_OVER: 0.0}.get(row.random)  # type: ignore[arg-type]
    drawn = _flat(one, whole=True)
    if mean is not None and abs(float(drawn.mean()) - mean) > 5 * drawn.numel() ** -0.5:
        yield "the mean of what is drawn"
    if row.random is Random.SWITCHED and not _switched(call):
        yield "switched on it draws nothing"


def _channels(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """A weight has as many entries as there are channels: the samples' sizes are 4, 5, 6, 7."""
    if row.channels is None:
        return
    places = call.operands()
    data = call.args[places[1] if row.factors else places[0]]
    weights = [call.args[place] for place in places if call.args[place] is not data]
    if not any(data.shape[row.channels] in weight.shape for weight in weights):
        yield "channels"


def _attention(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """A pattern sums to one, a pattern's product with ones is one, and so is attention to ones."""
    if row.attention is Attention.PATTERN:
        out = call()
        sums = (out.exp() if float(out.min()) < 0 else out).sum(call.args[1] if isinstance(call.args[1], int) else -1)
        sums = sums[sums != 0]
        if not torch.allclose(sums, torch.ones_like(sums)):
            yield "attention"
    elif row.attention is Attention.WHOLE:
        out = _first(call({2: torch.ones_like(call.args[2])}))
        if not torch.allclose(out, torch.ones_like(out)):
            yield "attention"
    elif row.attention is Attention.PRODUCT:
        first, second = _factor_places(row, call)
        pattern, ones = (_at(row, call, place) for place in (first, second))
        out = _with(row, call, {first: pattern.softmax(-1), second: torch.ones_like(ones)})
        if not torch.allclose(out, torch.ones_like(out)):
            yield "attention"


def _memory(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """The result is the same, and lies alike in its numbers, wherever an operand lies in memory."""
    if row.memory is Memory.READS_PLACES or row.random not in (None, Random.SWITCHED) or "empty" in name_of(key):
        return
    for place in call.operands():
        value = call.args[place]
        if isinstance(value, Tensor) and value.ndim > 1:
            laid = value.mT.contiguous().mT
            try:
                other = call({place: laid})
            except RuntimeError:  # a view that there is none of
                continue
            if not _same(call(), other, tolerance=1e-9 if value.dtype is torch.float64 else 1e-4):
                yield "memory"


def _own_memory(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """Norms and convolutions show no operand's memory: whoever functionalises a graph does not try."""
    operands = list(chain.from_iterable(tensors(call.args[place]) for place in call.operands()))
    given = {tensor.untyped_storage().data_ptr() for tensor in operands}
    made = {tensor.untyped_storage().data_ptr() for tensor in tensors(call())}
    if row.kind in (Kind.NORM, Kind.CONVOLUTION) and given & made:
        yield "memory of its own"


def _shifts(key: Any, row: Operator, call: Call) -> Iterator[str]:
    """At zero an operator that shifts is not zero, and one that does not is."""
    places = [place for place in (row.affine[0] if row.affine else ()) if place in _places(row, call)]
    if not places or row.kind is Kind.MOVES:
        return
    zero = _zeroed(_at(row, call, places[0]))
    shifted = bool((_flat(_with(row, call, {places[0]: zero}), whole=row.holds is None) != 0).any())
    if shifted is not (row.shifts is not None):
        yield f"shifts: {shifted}"


# --- Frozen.


def frozen_faults(key: Any, row: Operator, call: Call) -> list[str]:
    """Where the frozen operator is not the operator at the input, or not affine, by the operand that carries data."""
    found, refused = list[str](), list[str]()
    if not tensors(_first(call())) or row.random not in (None, Random.SWITCHED) or name_of(key).endswith("_"):
        return []
    for place in _places(row, call):
        if row.listed is not None or not isinstance(call.args[place], Tensor) or place == row.sizes_of:
            continue
        try:
            found += [f"{fault} in {place}" for fault in _frozen(row, call, place)]
        except InexactError as error:
            named = str(call.target) in str(error)
            refused.append(f"refused in {place}" if named else f"refused without a name in {place}")
    ruled = row.freeze is not None or (row.kind is Kind.POINTWISE and row.random is None)
    first = [f"refused in {place}" for place in (row.affine[0] if row.affine else ())]
    return found + ([fault for fault in refused if fault in first] if ruled else [])


def _frozen(row: Operator, call: Call, place: int) -> Iterator[str]:
    at = call.args[place]
    graph, state = freeze(*_graph(call, place), {"x": at})
    step = x(*at.shape, seed=30).to(at.dtype)
    ends = [run(graph, state, {"x": value})["y"] for value in (at, at + step, at - step)]
    scale = max(float(ends[0].abs().max()), 1.0) if ends[0].numel() else 1.0
    eps = 1e-4 if at.dtype is torch.float32 else 1e-9
    if not _same(ends[0], _data(call()), tolerance=eps * scale):
        yield "not equal at the input"
    if ends[0].is_floating_point() and not _same(ends[1] + ends[2], 2 * ends[0], tolerance=eps * 100 * scale):
        yield "not affine"


def _graph(call: Call, place: int) -> tuple[Graph, dict[str, Tensor]]:
    graph, state = fx.Graph(), dict[str, Tensor]()
    data = graph.placeholder("x")

    def held(tensor: Tensor) -> fx.Node:
        state[f"t{len(state)}"] = tensor
        return graph.placeholder(f"t{len(state) - 1}")

    def argument(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [argument(item) for item in value]
        return held(value) if isinstance(value, Tensor) else value

    args = [data if number == place else argument(value) for number, value in enumerate(call.args)]
    kwargs = {name: argument(value) for name, value in call.kwargs.items()}
    end = graph.call_function(call.target, tuple(args), kwargs)
    result = call()
    for _ in range(isinstance(result, list | tuple)):
        end = graph.call_function(operator.getitem, (end, 0))
    graph.output(end)
    segment = Segment("y", ("x",), ("y",), runnable(graph, "y"), tuple(state))
    return Graph({name: Stream(name) for name in "xy"}, (segment,), ("x",), ("x",), ("y",)), state


# --- Small things.


def _places(row: Operator, call: Call) -> list[int]:
    if row.listed is None:
        return call.operands()
    return [row.listed + number for number in range(len(call.args[row.listed]))]


def _factor_places(row: Operator, call: Call) -> list[int]:
    return _places(row, call)[row.factors if row.listed is None else 0 :][:2]


def _at(row: Operator, call: Call, place: int) -> Any:
    return call.args[place] if row.listed is None else call.args[row.listed][place - row.listed]


def _with(row: Operator, call: Call, changed: dict[int, Any]) -> Any:
    """The result with other operands; the factors of a list are places of their own."""
    if row.listed is None:
        return call(changed)
    factors = [changed.get(row.listed + n, factor) for n, factor in enumerate(call.args[row.listed])]
    return call({row.listed: factors})


def _additive(row: Operator, call: Call, places: list[int]) -> bool:
    one = {place: _at(row, call, place) for place in places}
    two = {place: _like(value) for place, value in one.items()}
    both = {place: _sum(one[place], two[place]) for place in places}
    zero = {place: _zeroed(one[place], all_of_them=True) for place in places}
    whole = row.freeze in (Frozen.LINEAR, Frozen.PRODUCT)
    try:
        a, b, c, d = (_flat(_with(row, call, changed), whole=whole) for changed in (one, two, both, zero))
    except RuntimeError:  # a window or a matrix of zeros
        return False
    if not a.numel() or not all(bool(torch.isfinite(value).all()) for value in (a, b, c, d)):
        return False
    return torch.allclose(
        a + b, c + d, rtol=1e-4 if a.dtype is torch.float32 else 1e-9, atol=1e-5 if a.dtype is torch.float32 else 1e-9
    )


def _like(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_like(item) for item in value]
    other = (
        x(*value.shape, seed=77)
        if not value.is_complex()
        else torch.complex(x(*value.shape, seed=77), x(*value.shape, seed=78))
    )
    return other.to(value.dtype)


def _sum(a: Any, b: Any) -> Any:
    return [first + second for first, second in zip(a, b, strict=True)] if isinstance(a, list | tuple) else a + b


def _zeroed(value: Any, *, all_of_them: bool = False) -> Any:
    if isinstance(value, list | tuple):
        return [_zeroed(item) if all_of_them or not place else item for place, item in enumerate(value)]
    return torch.zeros_like(value)


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, list | tuple) else result


def _data(result: Any) -> Tensor:
    return _first(result)


def _flat(result: Any, *, whole: bool) -> Tensor:
    """The numbers of a result, or of its first one alone, as real ones."""
    found = tensors(result if whole else _first(result))
    real = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in found]
    return torch.cat([t.reshape(-1) for t in real]) if real else torch.zeros(0)


def _elements(flat: Tensor) -> set[float]:
    return set(flat.tolist())


def _shapes(result: Any) -> list[Any]:
    return [tuple(t.shape) for t in tensors(result)] or [result.shape if isinstance(result, Tensor) else result]


def _same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    if isinstance(one, list | tuple):
        return all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if not isinstance(one, Tensor):
        return bool(one == other)
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


def _drawn(call: Call, seed: int, **kwargs: Any) -> Any:
    args = [a.clone() if isinstance(a, Tensor) else a for a in call.args]
    torch.manual_seed(seed)
    return call.target(*args, **{**call.kwargs, **kwargs})


def _switched(call: Call) -> bool:
    names = [argument.name for argument in call.target._schema.arguments]
    on = {name: value for name, value in (("train", True), ("training", True), ("dropout_p", 0.5)) if name in names}
    place = min(names.index(name) for name in on)
    kept = Call(call.target, call.args[:place], {**call.kwargs, **on})
    try:
        return not _same(_first(_drawn(kept, 1)), _first(_drawn(kept, 2)))
    except RuntimeError as error:  # the CPU's kernel of attention has no dropout
        return "do not support dropout" in str(error)
