"""A digest of the code on which the results of a zoo depend."""

import hashlib
from pathlib import Path

from oracles import additions, origins

SOURCE = Path(__file__).resolve().parents[2] / "src" / "unbraid"
FOLDERS = ("graph", "walk", "freeze", "capture", "discover", "results", "form")


def of_tracer() -> str:
    """Of what finds and cuts, and of what records additions."""
    digest = hashlib.sha256()
    sources = [file for folder in FOLDERS for file in sorted((SOURCE / folder).glob("*.py"))]
    for file in [*sources, Path(additions.__file__), Path(origins.__file__)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
