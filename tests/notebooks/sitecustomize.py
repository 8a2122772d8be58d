"""On the path of the kernels that run the notebooks: beside a CPU build of torch, torchvision's wheel needs it.

See tests/torchvision_stub.py; `scripts/notebooks.py` and the conftest of the repository put both folders on the path.
"""

import torchvision_stub  # noqa: F401
