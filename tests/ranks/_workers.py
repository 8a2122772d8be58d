"""Run as a program by the tests: the same work by 1, 2 and 4 processes that Gloo connects on the loopback.

    python _workers.py FOLDER

Torch is imported once; each rank is a fork. What each rank of a world of n finds is FOLDER/n/RANK.json.
"""

import contextlib
import io
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import unbraid
from kinds import dense, highways, mixes, two_trunks
from networks import normal
from train._small import examples
from unbraid import gradients, ranks, train
from unbraid import nn as unn
from unbraid.cli import main
from unbraid.train import Recipe
from waiting import HANGS

RECIPE = Recipe(epochs=2, batch_size=50, lr=0.05)  # 330 examples: the last batch holds 30


KINDS = {
    "highway": highways.CASES["x + t(f - x)"],
    "mHC": mixes.CASES["doubly stochastic, einsum"],
    "DenseNet": dense.CASES["growing"],
    "reversible": two_trunks.CASES["reversible"],
}


def network(norm=None, seed=0, **options):
    options = {"width": 16, "depth": 4, "norm": norm} | options
    return unn.mlp(inputs=12, classes=3, generator=torch.Generator().manual_seed(seed), **options)


def of_its_own(rank):
    return unbraid.trace(network(seed=rank).eval().double(), examples().test_inputs[:4].double())


def in_float64():
    """A form, and 7 batches of unequal sizes: no multiple of 2 or 4."""
    model = network(scale="1/sqrt(K)").eval().double()
    inputs = examples().test_inputs.double()
    sizes = [16, 16, 16, 16, 16, 12, 8]
    batches = list(zip(inputs.split(sizes), examples().test_labels.split(sizes), strict=True))
    return unbraid.trace(model, batches[0][0]), batches


def loss(output, labels):
    return nn.functional.cross_entropy(output, labels)


def analyses():
    form, batches = in_float64()
    found = {}
    for replace in ("zero", "mean", "resample"):
        found[f"lesion {replace}"] = unbraid.lesion(form, batches, loss, replace=replace).to_dict()
    found["lesion of an iterator"] = unbraid.lesion(form, iter(batches), loss, sets="pairs").to_dict()
    found["lesion of one batch"] = unbraid.lesion(form, batches[:1], loss).to_dict()
    found["reorderings"] = unbraid.reorderings(form, batches, loss, swaps=1, repeats=3).to_dict()
    found["subsets"] = unbraid.subsets(form, batches, loss).to_dict()
    found["signal"] = unbraid.signal(form, batches).to_dict()
    found["mean spectrum"] = unbraid.mean_spectrum(form, batches).to_dict()
    found["spectrum at a block"] = unbraid.mean_spectrum(form, batches, at=1).to_dict()
    found["rank"] = unbraid.rank(form, batches, by="lesion", metric=loss).to_dict()
    found["diagnosis"] = unbraid.diagnose(form, batches).to_dict()
    for name, case in KINDS.items():
        inputs = normal(13, *case.inputs[0].shape[1:], seed=5)
        own = list(zip(inputs.split(4), (torch.arange(13) % 3).split(4), strict=True))
        skips = [((block.index, "skip"),) for block in case.form.blocks[1:]]
        found[f"lesion of skips, {name}"] = unbraid.lesion(case.form, own, loss, sets=[*skips, 0]).to_dict()
        found[f"mean spectrum, {name}"] = unbraid.mean_spectrum(case.form, own).to_dict()
    with ranks.alone():
        found["alone"] = unbraid.lesion(form, batches[:2], loss).to_dict()
    return found


def training(folder):
    data, found = examples(), {}
    for name, made in {
        "sgd": (network(scale="1/sqrt(K)"), RECIPE),
        "adamw": (network(norm="layer"), Recipe(epochs=2, batch_size=50, lr=0.003, optimizer="adamw")),
        "batch norm": (network(norm="batch"), RECIPE),
        "dropout": (network(stochastic_depth=0.5), RECIPE),
    }.items():
        model, recipe = made
        log = None
        if name == "batch norm":
            form = unbraid.trace(model.eval(), data.test_inputs[:4])
            log = gradients.DiagnosisLog(form, [(data.test_inputs, data.test_labels)], file=folder / "log.jsonl")
        run = train.fit(model, data, recipe, seed=1, folder=folder / name, on_epoch=log)
        found[name] = {
            "weights": {key: value.tolist() for key, value in run.network.state_dict().items()},
            "history": [[e.train_loss, e.train_error, e.test_error] for e in run.history],
            "modules": [type(module).__name__ for module in run.network.modules()],
        }
    if ranks.world().size > 1:
        found["averaged by rank"] = averaged_by_rank(data)
    wild = train.fit(network(), data, Recipe(epochs=2, batch_size=50, lr=1e30), folder=folder / "wild")
    found["diverged"] = wild.diverged
    return found


def averaged_by_rank(data):
    """Break the weights on purpose: each rank counts alike, whether it has 13 examples of a batch or 12."""
    from unbraid.train import _loop

    kept, _loop.weight = _loop.weight, lambda mine, batch: 1.0
    try:
        run = train.fit(network(scale="1/sqrt(K)"), data, RECIPE, seed=1)
    finally:
        _loop.weight = kept
    return {key: value.tolist() for key, value in run.network.state_dict().items()}


def errors(folder):
    """Each message, as every rank sees it; a rank that waited for another would meet the time limit of the group."""
    form, batches = in_float64()
    rank = ranks.world().rank
    bad = [(batches[0][0], batches[0][1]), (batches[1][0], batches[1][1]), batches[2][0]]
    others = batches if rank == 0 else batches[::-1]

    def fails(output, labels):
        if rank == ranks.world().size - 1:
            raise MemoryError("no room on the last rank")
        return loss(output, labels)

    tries = {
        "bad batch": lambda: unbraid.lesion(form, bad, loss),
        "no batch": lambda: unbraid.signal(form, []),
        "other data": lambda: unbraid.mean_spectrum(form, others),
        "fewer batches": lambda: unbraid.signal(form, batches[: 7 - rank]),
        "one rank fails": lambda: unbraid.lesion(form, batches, fails),
        "run is there": lambda: train.fit(network(scale="1/sqrt(K)"), examples(), RECIPE, folder=folder / "sgd"),
        "no folder": lambda: train.fit(network(), examples(), RECIPE, folder=folder / "sgd" / "config.json" / "x"),
        "too many ranks": lambda: train.fit(network(), examples(train=101), RECIPE),
        "many networks": lambda: train.train_many([network()], examples(), RECIPE, seeds=[0]),
        "other model": lambda: unbraid.signal(of_its_own(rank), batches),
        "other sets": lambda: unbraid.lesion(form, batches, loss, sets=[(rank,), (1,)]),
        "other network": lambda: train.fit(network(seed=rank), examples(), RECIPE),
        "lost share": lambda: with_a_lost_share(form, batches),
    }
    found = {}
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "went through"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def with_a_lost_share(form, batches):
    """Break the reduction on purpose: the last rank answers, but its share is dropped."""
    from unbraid.ranks import _order

    kept = _order._answer

    def forgetful(source, work, here):
        message = kept(source, work, here)
        if here.rank == here.size - 1:
            message.facts["did"] = None
            return type(message)(message.facts, {})
        return message

    _order._answer = forgetful
    try:
        return unbraid.signal(form, batches)
    finally:
        _order._answer = kept


def command(folder):
    """The verbs, by the command line; what each rank prints."""
    grid = folder / "grid.toml"
    if ranks.world().first:
        grid.write_text('depth = [2, 3]\nlr = [0.01, 0.05]\nepochs = 1\nwidth = 8\nseeds = 3\ndata = "digits"\n')
    ranks.from_first(lambda: None)
    run = str(folder / "run")
    calls = {
        "train": ["train", run, "--depth", "3", "--epochs", "2", "--data", "digits", "--json"],
        "lesion": ["lesion", run, "--batch", "30", "--metric", "loss", "--json", "-o", str(folder / "lesion.svg")],
        "sweep": ["sweep", str(grid), "--together", "3", "--json"],
        "sweep again": ["sweep", str(grid), "--together", "3", "--json"],
        "bad": ["lesion", str(folder / "nothing"), "--json"],
    }
    found = {}
    for name, arguments in calls.items():
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = main(arguments)
        found[name] = [status, out.getvalue(), err.getvalue()]
    return found


def resumed(folder, start):
    """A run begun elsewhere goes on here."""
    model = network(scale="1/sqrt(K)")
    longer = Recipe(epochs=4, batch_size=50, lr=0.05)
    if start:
        with contextlib.suppress(EnoughError):
            train.fit(model, examples(), longer, seed=1, folder=folder, on_epoch=stop_after_second)
        return None
    run = train.fit(model, examples(), longer, seed=1, folder=folder, resume=True)
    return {"weights": {k: v.tolist() for k, v in run.network.state_dict().items()}, "epochs": len(run.history)}


class EnoughError(Exception):
    pass


def stop_after_second(epoch):
    if epoch.epoch == 2:
        raise EnoughError


def work(folder, size):
    home = folder / str(size)
    found = {"analyses": analyses(), "training": training(home), "command": command(home)}
    if size > 1:
        found["errors"] = errors(home)
    if size in (1, 4):
        resumed(folder / f"begun by {size}", start=True)
    if size in (1, 2):
        found["resumed"] = resumed(folder / f"begun by {4 if size == 2 else 1}", start=False)
    return found


def rank_of(size, rank, folder):
    if size > 1:
        store = dist.FileStore(str(folder / f"store {size}"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=HANGS))
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="localhost", MASTER_PORT="1")
    found = work(folder, size)
    (folder / str(size) / f"{rank}.json").write_text(json.dumps(found))
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    for size in (1, 4, 2):
        (where / str(size)).mkdir()
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                try:
                    rank_of(size, rank, where)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
        if failed:
            sys.exit(f"of {size} ranks {len(failed)} failed")
