"""A model to operators: exported by torch or recorded at one run, functionalised, with the signature of its calls."""

from unbraid.capture._capture import Capture, Tracer, capture
from unbraid.capture._checkpoints import plain_checkpoints
from unbraid.capture._exclusive import exclusive
from unbraid.capture._exportable import own, titles
from unbraid.capture._functional import functional
from unbraid.capture._kv_cache import without_cache
from unbraid.capture._meta import computed, empty_weights, on_meta
from unbraid.capture._new_nodes import call, scaled
from unbraid.capture._outputs import named_outputs, output_stream
from unbraid.capture._provenance import Path, common, printable, scope, scopes, source, where
from unbraid.capture._side_run import Draws, drawing
from unbraid.capture._signature import Number, Signature, Sizes, TensorSpec, as_call, plain_names, sizes
from unbraid.capture._silenced import unwarned
from unbraid.capture._state_names import tied
from unbraid.capture._trees import flatten, leaves_of, mapped_tensors, parts_of, tensors_in
from unbraid.capture._untouched import Run, run_untouched, runs, untouched
from unbraid.capture._unwrap import bare

__all__ = [
    "Capture",
    "Draws",
    "Number",
    "Path",
    "Run",
    "Signature",
    "Sizes",
    "TensorSpec",
    "Tracer",
    "as_call",
    "bare",
    "call",
    "capture",
    "common",
    "computed",
    "drawing",
    "empty_weights",
    "exclusive",
    "flatten",
    "functional",
    "leaves_of",
    "mapped_tensors",
    "named_outputs",
    "on_meta",
    "output_stream",
    "own",
    "parts_of",
    "plain_checkpoints",
    "plain_names",
    "printable",
    "run_untouched",
    "runs",
    "scaled",
    "scope",
    "scopes",
    "sizes",
    "source",
    "tensors_in",
    "tied",
    "titles",
    "untouched",
    "unwarned",
    "where",
    "without_cache",
]
