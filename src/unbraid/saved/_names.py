"""The files of a saved form, and the version of what stands in them."""

import re

GRAPH = "graph.pt2"
WEIGHTS = "weights.safetensors"
FORM = "form.json"
NUMBERED = "weights-{:05}.safetensors"  # where there are several
FILE = re.compile(r"weights(-[0-9]{5,9})?\.safetensors")
VERSION = 2  # what is written
UNCHECKED = 1  # what was written before: some such forms have no checksums
