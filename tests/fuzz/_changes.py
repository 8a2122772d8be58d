"""What goes wrong with files, and what people do to them: cut, flipped, spliced, and headers that lie."""

import io
import json
import warnings
import zipfile
from typing import Any

from fuzz._source import Source, often, pick

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65_535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400)
NASTY: tuple[Any, ...] = (
    *NUMBERS,
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "nan", "../../../../etc/passwd", "/dev/zero", "\ud7ff\U0001f600", "x" * 3000, "__import__('os')"),
    *(None, True, False, [], {}, [[]], [{}], {"a": None}, [1, 2, 3], [-1], [2**40, 2**40]),
)


def changed_bytes(source: Source, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """The bytes with up to three things done to them."""
    for _ in range(source.number(1, 3)):
        at, to = (source.number(0, len(data)) for _ in range(2))
        low, high = min(at, to), max(at, to)
        what = source.number(0, 6)
        if what == 0 and data:  # one bit
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << source.number(0, 7))]) + data[at + 1 :]
        elif what == 1:
            data = data[:at]
        elif what == 2:
            data = data[:low] + data[high:]
        elif what == 3:
            data = data[:at] + data[low:high][:4096] + data[at:]
        elif what == 4:  # a number, as headers hold them
            size = pick(source, (2, 4, 8))
            data = data[:at] + (pick(source, NUMBERS) % 256**size).to_bytes(size, "little") + data[at + size :]
        elif what == 5:
            other = pick(source, (data, *others))
            data = data[:at] + other[source.number(0, len(other)) :]
        else:
            data = data[:at] + bytes(source.number(0, 255) for _ in range(source.number(1, 8))) + data[at:]
    return data


def changed_tree(source: Source, tree: Any, nasty: tuple[Any, ...] = NASTY) -> Any:
    """The tree of JSON with one or two places changed: replaced, left out, doubled, swapped with another's."""
    tree = json.loads(json.dumps(tree))
    for _ in range(source.number(1, 2)):
        places = list(_places(tree))
        if not places:
            return pick(source, nasty)
        holder, key = pick(source, places)
        what = source.number(0, 5)
        if what <= 2:
            holder[key] = pick(source, nasty)
        elif what == 3:
            other, from_ = pick(source, places)
            holder[key] = json.loads(json.dumps(other[from_]))
        elif what == 4:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            holder[pick(source, ("x", "", "../x", f"{key}x"))] = holder.pop(key)
    return tree


def _places(tree: Any):
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def changed_json(source: Source, text: bytes, nasty: tuple[Any, ...] = NASTY) -> bytes:
    if not often(source, 6):
        return changed_bytes(source, text)
    if not often(source, 40):
        return b"[" * 100_000
    return json.dumps(changed_tree(source, json.loads(text), nasty)).encode("utf-8", "surrogatepass")


def changed_safetensors(source: Source, data: bytes) -> bytes:
    """The header's JSON changed, types and shapes too, its length kept true or not."""
    if not often(source, 3):
        return changed_bytes(source, data)
    size = int.from_bytes(data[:8], "little")
    types = (
        "F64",
        "F32",
        "F16",
        "BF16",
        "F8_E4M3",
        "F8_E5M2",
        "F8_E8M0",
        "F4",
        "I64",
        "I8",
        "U64",
        "BOOL",
        "C64",
        "F6",
    )
    header = json.dumps(changed_tree(source, json.loads(data[8 : 8 + size]), (*types, *NASTY))).encode()
    length = len(header) if often(source, 8) else pick(source, NUMBERS) % 2**64
    return length.to_bytes(8, "little") + header + data[8 + size :]


def changed_header(source: Source, data: bytes) -> bytes:
    """An .npy array whose header names another type, order or shape."""
    if not often(source, 3) or len(data) < 12:
        return changed_bytes(source, data)
    size = int.from_bytes(data[8:10], "little")
    types = "<f8 >f4 <f2 <f16 <i8 >i2 |u1 |b1 <c16 <U4 |S3 |O |V8 <M8[ns] <m8 |a0 <f3 ?? ".split()
    shapes = ("()", "(0,)", "(1,)", "(-1,)", "(3, 2)", "(2, 3, 4)", "(6,)", f"({2**40},)", f"({2**62}, 4)", "(True,)")
    descr = repr(pick(source, types)) if often(source, 6) else pick(source, ("[('x', '<f4')]", "1", "None", "()"))
    order = pick(source, ("True", "False", "1"))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {pick(source, shapes)}, }}"
    header = header if often(source, 8) else changed_bytes(source, header.encode()).decode("latin-1")
    text = header.encode("latin-1") + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + size :]


def changed_zip(source: Source, data: bytes, change) -> bytes:
    """An archive in which one member is changed, renamed, doubled, left out or blown up."""
    if not often(source, 4):
        return changed_bytes(source, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = source.number(0, len(members) - 1)
    name, content = members[at]
    what = source.number(0, 9)
    method = zipfile.ZIP_STORED
    if what <= 5:
        members[at] = (name, change(source, name, content))
    elif what == 6:
        members[at] = (pick(source, ("../x.npy", "/etc/x", "", "x", name.upper())), content)
    elif what == 7:
        members.append((name, pick(source, members)[1]))
    elif what == 8:
        del members[at]
    else:
        members[at] = (name, content + bytes(2**22))
        method = pick(source, (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()
