"""The data that a run was trained on, read again."""

from pathlib import Path

from unbraid.data import BUILT_IN, Dataset, by_name
from unbraid.errors import DataError
from unbraid.train._description import describe_data
from unbraid.train._run import Run

__all__ = ["read_again"]


def read_again(run: Run) -> Dataset:
    """See `Run.dataset`."""
    kept = run.data_facts.get("path")
    if not isinstance(kept, str) and run.data in BUILT_IN:
        return _shaped(run, by_name(run.data))
    # A file is asked for by its whole path first; runs of earlier versions know its name alone.
    places = [Path(place) for place in dict.fromkeys(filter(None, (kept, run.data))) if isinstance(place, str)]
    there = [place for place in places if "\0" not in str(place) and place.exists()]
    for place in there:
        dataset = by_name(place)
        if describe_data(dataset)["sha256"] == run.data_facts.get("sha256"):
            return _shaped(run, dataset)
    said = " or ".join(str(place) for place in there or places)[:200]
    what = "are others by their checksum, or were split or standardised otherwise" if there else "are not there"
    raise DataError(f"{run.folder}: the data that it was trained on {what}: {said}. Say which to take (--data).")


def _shaped(run: Run, dataset: Dataset) -> Dataset:
    """With inputs as the network had them."""
    try:
        return dataset if run.features is None else dataset.shaped(*run.features)
    except ValueError:
        return dataset
