"""Import this before timm: a torchvision wheel beside a CPU build of torch cannot load its compiled operators.

Its import then fails on two missing schemas. Declared here, they are never called.
"""

import contextlib

import torch

# A torchvision that loads its operators declares them itself, and a second declaration is refused.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
