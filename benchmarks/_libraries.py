"""Imported before timm and transformers.

On a CPU build of torch the torchvision wheel lacks two operators; their schemas are enough to import it.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import torchvision_stub  # noqa: F401
