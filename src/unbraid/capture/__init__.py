"""A model to operators: exported by torch or recorded at one run, functionalised, with the signature of its calls."""

from unbraid.capture._capture import Capture, Tracer, capture
from unbraid.capture._checkpoints import plain_checkpoints
from unbraid.capture._exclusive import exclusive
from unbraid.capture._exportable import own, titles
from unbraid.capture._functional import functional
from unbraid.capture._kv_cache import without_cache
from unbraid.capture._meta_device import computed, empty_weights, on_meta, tied
from unbraid.capture._new_nodes import call, scaled
from unbraid.capture._outputs import named_outputs, output_stream
from unbraid.capture._side_run import Draws, drawing
from unbraid.capture._silenced import unwarned
from unbraid.capture._untouched import Run, run_untouched, runs, untouched
from unbraid.capture._unwrap import bare

__all__ = [
    "Capture",
    "Draws",
    "Run",
    "Tracer",
    "bare",
    "call",
    "capture",
    "computed",
    "drawing",
    "empty_weights",
    "exclusive",
    "functional",
    "named_outputs",
    "on_meta",
    "output_stream",
    "own",
    "plain_checkpoints",
    "run_untouched",
    "runs",
    "scaled",
    "tied",
    "titles",
    "untouched",
    "unwarned",
    "without_cache",
]
