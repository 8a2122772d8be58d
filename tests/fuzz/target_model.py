"""What a MODEL argument and `--input-shape` may say, and configurations of transformers."""

import os
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torchvision_stub  # noqa: F401
from fuzz._changes import changed_bytes, changed_json
from fuzz._source import Source, often, pick
from unbraid.errors import UnbraidError

PREFIXES = ("timm:", "torchvision:", "hf:", "TIMM:", ":", "", "file:", "x.py:", "hf:hf:")
NAMES = ("", "resnet", "nothing", "../x", "/dev/null", ".", "\0", "ä" * 300, "a/b/c", "--", "$(touch x)", "x" * 5000)
FACTORIES = {
    "empty.py": "",
    "broken.py": "def make(:",
    "raises.py": "raise RuntimeError('at import')",
    "exits.py": "def make():\n    raise KeyError",
    "odd.py": "from torch import nn\nmake = 7\ndef none(): pass\ndef pair(): return 1, 2\ndef net(): return nn.ReLU()",
}
SHAPES = ("1,3,4,4", "", ",", "0", "-1", "1,,2", "9" * 50, "٣,2", "1e3", " 2 , 2 ", "4294967295,4294967295", "2;2")
CONFIG = (
    b'{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 8, "n_head": 2, "n_layer": 1, '
    b'"vocab_size": 16, "n_positions": 16, "activation_function": "gelu"}'
)
# Sizes that a machine can hold: a model as large as its owner says is no fault of the reader.
SMALL = (0, -1, 1, 3, 2.5, "", "x", None, True, [], {}, [1], "GPT2Model", "pipeline", "os", "../x", "kernels/x", "nan")
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}


@cache
def _warm() -> None:
    """Import what the libraries import when first used: they open libraries and caches of their own."""
    from huggingface_hub import constants

    from unbraid.cli.models._model import Wish, load

    constants.HF_HUB_OFFLINE = True  # another test may have imported it before the environment said so
    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        config = Path(folder) / "config.json"
        config.write_bytes(CONFIG)
        for spec in (f"hf:{config}", "timm:nothing", "torchvision:nothing", f"hf:{folder}/nothing"):
            with suppress(UnbraidError, ValueError, OSError):
                load(spec, Wish(examples=1))


def case(source: Source, folder: Path):
    from unbraid.cli.models._model import Wish, load, parse_shape

    _warm()
    for name, text in FACTORIES.items():
        (folder / name).write_text(text)
    what = source.number(0, 7)
    if what == 0:
        config = folder / "config.json"
        config.write_bytes(changed_json(source, CONFIG, SMALL))
        spec = f"hf:{config}"
    elif what <= 3:
        file = pick(source, (*FACTORIES, "missing.py", ".py", "x.py:y"))
        spec = f"{folder / file}:{pick(source, ('make', 'none', 'pair', 'net', 'class', '', 'a.b', 'é', '1'))}"
    else:
        spec = pick(source, PREFIXES) + pick(source, NAMES)
    if not often(source, 4) and what:
        spec = changed_bytes(source, spec.encode()).decode("utf-8", "replace")
    shape = pick(source, SHAPES) if often(source, 3) else None

    def read() -> None:
        load(spec, Wish(shape=parse_shape(shape), examples=1))

    return read
