"""The metric of a model without each of some sets of blocks (Veit et al. 2016, section 4.1).

Each lesion is a variant of the form; `sweep` runs them all so that equal work is done once, and several in one batch.
"""

from itertools import chain
from pathlib import Path

import torch

from unbraid._modes import outside_modes
from unbraid._renamed import keep_and_stateful_before
from unbraid.discover import refuse_stateful
from unbraid.form import ResidualForm
from unbraid.graph import BranchIndex, Step
from unbraid.lesions._corrupt import BesideCorrupt, at_corrupt, of_clean
from unbraid.lesions._lesion_sets import LesionSet, Sets, the_names, the_sets
from unbraid.lesions._lesion_study import SAID, LesionStudy
from unbraid.lesions._positions import Positions, in_words
from unbraid.lesions._replace import NOTHING, Replacement, means, others
from unbraid.sweep import Batches, Metric, Resume, lesioned, sweep


@keep_and_stateful_before
@outside_modes
def lesion(
    form: ResidualForm,
    batches: Batches,
    metric: Metric,
    *,
    sets: Sets = "single",
    replace: str = "zero",
    corrupt: Batches | None = None,
    positions: Positions | None = None,
    max_batch: int | None = None,
    allow_random: bool = False,
    generator: torch.Generator | None = None,
    resume: Path | str | None = None,
) -> LesionStudy:
    """The metric of a model without each of some sets of blocks.

    A deleted branch adds nothing, and the skip stays; in a plain layer, which has none, the identity takes the layer's
    place where sizes agree. Lesions that agree on what comes before a block share it, and those that do not run
    together as a larger batch, so all single deletions cost about half of K + 1 runs. Memory does not grow with the
    data, only with `max_batch`.

    With replace="corrupt" whole outputs are patched from another run (activation patching): with f_k(x) what branch k
    gives in the whole model at x, batch by batch,

        metric without k = metric(model(clean | f_k := f_k(corrupt)))

    That is *noising*: the clean run, and what it loses by one corrupt output. *Denoising* is the exchange, the corrupt
    batches as `batches` and the clean ones as `corrupt`: what the corrupt run regains by one clean output. Labels and
    the whole model's metric are those of `batches`.

    Args:
        form: a traced model, or a chain.
        batches: pairs of inputs and labels; inputs a tensor, a tuple or a dict. With replace="mean" they are read
            twice, so no iterator.
        metric: (what the model returns, labels) -> a scalar tensor; averaged over batches by their size.
        sets: "single" for every block, "pairs" for every pair of blocks, or sets of your own: blocks by index or name,
            branches as (block, branch), skips as (block, "skip"), as `form.without` takes them.
        replace: what takes the place of the branch's output, or the skip's: "zero"; "mean", its mean over the data at
            each position; "resample", what it gives in the whole model for another example of the batch. Without the
            branch a gated or mixed skip stays as it was computed; "identity" leaves nothing of a block but its input;
            "corrupt", what it gives in the whole model at the batch of the same number in `corrupt`.
        corrupt: of "corrupt", one for each of `batches` and of its sizes: pairs as there, whose labels are not read, or
            inputs alone, a tensor or a dict.
        positions: of "corrupt", at which positions of streams [batch, positions, width] the output is replaced, for all
            examples by number, or for each by a mask, bool [batch, positions]; elsewhere it is what the branch gives in
            the patched run, as with a hook that writes into it. None for all.
        max_batch: how many examples run at once at most, if more than a batch holds; None lets the memory decide.
        allow_random: accept operators that draw random numbers, or norms that use their batch's own statistics; then
            nothing is stacked, and lesions that share a random operator share its draw.
        generator: of "resample"; with the seed 0 where none is given.
        resume: an SQLite file in which finished batches are kept, made where it is missing: the same call goes on from
            there, and ends with the numbers of an unbroken one. What the metric computes it cannot tell: give another
            file for another metric.

    Raises:
        ValueError: a random operator, or a norm in training, that was not asked for; unknown `sets` or `replace`;
            `corrupt` or `positions` without replace="corrupt"; `positions` of a stream that has none.
        IndexError: there is no such block, branch or position; or neither skip nor branch of a block would be left.
        ShapeError: a plain layer changes the size, so that no identity can take its place; or any block does, with
            "identity".
        DataError: there is no batch; a batch of one with "resample"; batches of several lengths with "mean"; another
            number of corrupt batches, or other sizes.
        CheckpointError: `resume` is the file of another job, form or settings, or cannot be read or written.
    """
    if replace not in SAID:
        raise ValueError(f'replace: "zero", "mean", "resample", "identity" or "corrupt"; got "{replace}".')
    _check_corrupt(replace, corrupt, positions)
    if not allow_random:
        refuse_stateful(form.graph, "lesion")
    elif resume is not None:
        raise ValueError(
            "lesion: what draws random numbers cannot go on where it stopped: leave out resume or allow_random."
        )
    settings: tuple[object, ...] = (replace, None if generator is None else generator.get_state())
    chosen = the_sets(form, sets)
    if replace == "identity" and any(isinstance(part, tuple) for part in chain.from_iterable(chosen)):
        raise ValueError('replace: "identity" takes the place of whole blocks; a branch or a skip is to go by itself.')
    if corrupt is not None:
        variants: list[tuple[Step, ...]] = []  # without a stand-in, no layer that changes the size could go
        stand_in = at_corrupt(form, _touched(form, chosen), positions)
        batches, metric, settings = BesideCorrupt(batches, corrupt), of_clean(metric), (*settings, positions)
    else:
        # Errors come before the first pass, not after it.
        variants = lesioned(form, [(), *chosen], bare=replace == "identity")
        stand_in = _replacement(form, chosen, replace, batches, generator)
    runs = stand_in.form or form
    if stand_in.instead or not variants:
        variants = lesioned(runs, [(), *chosen], stand_in.instead)
    swept = sweep(
        runs,
        variants,
        batches,
        metric,
        max_batch=max_batch,
        stack=not allow_random,
        given=stand_in.given,
        feed=stand_in.feed,
        resume=Resume(resume, "lesion", settings),
        text="lesions",
    )
    touched = {part if isinstance(part, int) else part[0] for part in chain.from_iterable(chosen)}
    plain = [b.index for b in form.blocks if b.skip == "none" and b.index in touched and replace == "zero"]
    names = the_names(form, chosen)
    return LesionStudy(
        whole=swept.means[0],
        sets=chosen,
        names=names,
        metrics=swept.means[1:],
        replace=replace,
        identity=tuple(plain),
        examples=swept.examples,
        stacked=swept.stacked,
        positions="" if positions is None else in_words(positions),
    )


def _check_corrupt(replace: str, corrupt: Batches | None, positions: Positions | None) -> None:
    if replace == "corrupt" and corrupt is None:
        raise ValueError('replace: "corrupt" takes outputs from other batches: give them as corrupt=.')
    if replace != "corrupt" and (corrupt is not None or positions is not None):
        what = "positions" if corrupt is None else "corrupt"
        raise ValueError(f'{what}: it goes with replace="corrupt"; replace is "{replace}".')


def _replacement(
    form: ResidualForm,
    chosen: tuple[LesionSet, ...],
    replace: str,
    batches: Batches,
    generator: torch.Generator | None,
) -> Replacement:
    if replace in ("zero", "identity"):
        return NOTHING
    touched = _touched(form, chosen)
    return means(form, touched, batches) if replace == "mean" else others(form, touched, generator)


def _touched(form: ResidualForm, chosen: tuple[LesionSet, ...]) -> list[BranchIndex]:
    """The branches and skips that some set takes out, each once."""
    branches = {block.index: range(len(block.branches)) for block in form.all_blocks}
    touched: dict[BranchIndex, None] = {}
    for part in chain.from_iterable(chosen):
        pairs = [part] if isinstance(part, tuple) else [(part, branch) for branch in branches[part]]
        touched.update(dict.fromkeys(pairs))
    return list(touched)
