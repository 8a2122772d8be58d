"""graph.pt2 as somebody else would write it: read as the graph that it describes, or refused in a line."""

import io
import json
import shutil
import struct
import zipfile

import pytest
import torch

from sums import signed
from unbraid import nn, trace
from unbraid.errors import CheckpointError
from unbraid.form import load

X = torch.ones(2, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    network = nn.mlp(inputs=3, classes=2, width=3, depth=1, generator=torch.Generator().manual_seed(0)).eval()
    return trace(network, X).save(tmp_path_factory.mktemp("form") / "saved")


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def load_other(saved, tmp_path, content):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "graph.pt2").write_bytes(content)
    return load(signed(folder))


def stored(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return archive.getvalue()


def refused_or_same(saved, tmp_path, content):
    """What the refusal says; "load: the same" where what was loaded computes what the form does."""
    try:
        found = load_other(saved, tmp_path, content)(X)
    except CheckpointError as error:
        return str(error)
    return "load: the same" if torch.equal(found, load(saved)(X)) else "another graph was read"


MODEL = "archive/models/model.json"


def graph(model):
    return model["graph_module"]["graph"]


def replaced(tree, key, value):
    """The first entry of that name, anywhere, made another."""
    for holder in [tree] if isinstance(tree, dict) else []:
        if key in holder:
            holder[key] = value
            return True
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(replaced(item, key, value) for item in items)


def renamed(graph):
    """Each node's result is called as the first one's."""
    first = graph["nodes"][0]["outputs"][0]["as_tensor"]["name"]
    for node in graph["nodes"]:
        node["outputs"][0]["as_tensor"]["name"] = first


TREES = {
    "nodes the other way round": lambda model: graph(model)["nodes"].reverse(),
    "each node twice": lambda model: graph(model)["nodes"].extend(list(graph(model)["nodes"])),
    "one name for all": lambda model: renamed(graph(model)),
    "no nodes": lambda model: graph(model).update(nodes=[]),
    "no outputs": lambda model: graph(model).update(outputs=[]),
    "nodes that are none": lambda model: graph(model).update(nodes=[7, None, "x"]),
    "an output that is nowhere": lambda model: graph(model)["outputs"][0].update(as_tensor={"name": "nowhere"}),
    "an operand that is nowhere": lambda model: replaced(graph(model)["nodes"], "as_tensor", {"name": "nowhere"}),
    "too many operands": lambda model: graph(model)["nodes"][0].update(
        inputs=graph(model)["nodes"][0]["inputs"] * 1000
    ),
    "no operands": lambda model: graph(model)["nodes"][0].update(inputs=[]),
    "another operator": lambda model: replaced(graph(model)["nodes"], "target", "torch.ops.aten.bernoulli_.float"),
    "an operator in place": lambda model: replaced(graph(model)["nodes"], "target", "torch.ops.aten.resize_.default"),
    "an enormous size": lambda model: replaced(graph(model)["tensor_values"], "as_int", 10**30),
    "a large size": lambda model: replaced(graph(model)["tensor_values"], "as_int", 2**62),
    "a negative size": lambda model: replaced(graph(model)["tensor_values"], "as_int", -5),
    "a size that is a text": lambda model: replaced(graph(model)["tensor_values"], "as_int", "3"),
    "an unknown type": lambda model: replaced(graph(model)["tensor_values"], "dtype", 9999),
    "an unknown layout": lambda model: replaced(graph(model)["tensor_values"], "layout", 99),
    "an unknown device": lambda model: replaced(graph(model)["tensor_values"], "device", {"type": "x", "index": 3}),
    "a device that is not here": lambda model: replaced(
        graph(model)["tensor_values"], "device", {"type": "cuda", "index": 99}
    ),
    "no sizes": lambda model: graph(model).update(tensor_values={}),
    "a range the wrong way": lambda model: model.update(
        range_constraints={key: {"min_val": 9, "max_val": 2} for key in model["range_constraints"]}
    ),
    "ranges that are none": lambda model: model.update(range_constraints={"s0": None, "x": {"min_val": "x"}}),
    "no signature": lambda model: model["graph_module"].update(signature={}),
    "another version": lambda model: model.update(schema_version={"major": 99, "minor": 0}),
    "many operator sets": lambda model: model.update(opset_version={f"x{n}": n for n in range(10_000)}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TREES)
def test_a_description_that_makes_no_sense_is_refused_or_is_the_same(saved, tmp_path, case):
    files = members(saved / "graph.pt2")
    model = json.loads(files[MODEL])
    assert TREES[case](model) is not False, "nothing was changed"
    said = refused_or_same(saved, tmp_path, stored({**files, MODEL: json.dumps(model)}))
    assert said.startswith("load: ")
    assert len(said) < 1000
    assert "\n" not in said.strip()


def overlapping(content):
    """The second member of the list shows the first one's place."""
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    return content[: second + 42] + content[first + 42 : first + 46] + content[second + 46 :]


def lying(content):
    """The first member says that it has 4 GB less one byte."""
    first = content.index(b"PK\x01\x02")
    return content[: first + 20] + struct.pack("<II", 2**32 - 2, 2**32 - 2) + content[first + 28 :]


ARCHIVES = {
    "members in one place": overlapping,
    "a member larger than the file": lying,
    "something before it": lambda content: b"#!/bin/sh\n" + content,
    "something behind it": lambda content: content + b"\n" * 100,
    "half of it": lambda content: content[: len(content) // 2],
    "nothing": lambda content: b"",
    "its list alone": lambda content: content[content.index(b"PK\x01\x02") :],
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_lies_is_refused_or_is_the_same(saved, tmp_path, case):
    said = refused_or_same(saved, tmp_path, ARCHIVES[case]((saved / "graph.pt2").read_bytes()))
    assert said.startswith("load: ")
    assert "\n" not in said.strip()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "archive/../../x", "archive/data/weights/weight_0/x", "x" * 60_000])
def test_members_lie_nowhere_else(saved, tmp_path, name):
    with pytest.raises(CheckpointError, match=r"^load: the graph's archive (holds|has one folder)") as raised:
        load_other(saved, tmp_path, stored({**members(saved / "graph.pt2"), name: b"x"}))
    assert len(str(raised.value)) < 1000
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b"\xff", b"{}", b"9" * 10_000])
def test_a_description_that_is_none(saved, tmp_path, text):
    with pytest.raises(CheckpointError, match=r"^load: "):
        load_other(saved, tmp_path, stored({**members(saved / "graph.pt2"), MODEL: text}))
