"""Import this before torchaudio: its wheel is compiled for another torch, and its operators cannot be loaded.

Its models do without them. Nothing happens where torchaudio is not installed.
"""

import sys
from types import ModuleType

_extension = ModuleType("torchaudio._extension")
vars(_extension).update(
    _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda function: function
)
sys.modules.setdefault("torchaudio._extension", _extension)
