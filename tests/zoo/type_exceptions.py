"""What the general rules of small_configs.py and small_inputs.py get wrong, type by type, as data.

SETTINGS: values by the name of a setting, which hold whatever the rules say; a dotted name is one of a nested
configuration. INPUTS: how inputs are made that the rules do not know, or make in another size.
"""

from collections.abc import Callable, Mapping
from typing import Any

SETTINGS: Mapping[str, Mapping[str, Any]] = {}
INPUTS: Mapping[str, Mapping[str, Callable[[], Any]]] = {}
