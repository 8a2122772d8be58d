"""A plan that fails, made smaller as long as it fails in the same way."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from generated.plan import Block, Branch, Plan


def shrunk(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Greedily: the first smaller plan that still fails is taken, until none does."""
    while True:
        smaller = next((p for p in _smaller(plan) if fails(p)), None)
        if smaller is None:
            return plan
        plan = smaller


def _smaller(plan: Plan) -> Iterator[Plan]:
    plainest = {"again": (), "training": False, "dtype": "float64", "positions": 0, "batch": 2, "width": 4}
    for name, value in plainest.items():
        if getattr(plan, name) != value:
            yield replace(plan, **{name: value})
    if len(plan.blocks) > 1 and not plan.again:
        for k in range(len(plan.blocks)):
            yield replace(plan, blocks=plan.blocks[:k] + plan.blocks[k + 1 :])
    for k, block in enumerate(plan.blocks):
        for other in _blocks(block):
            yield replace(plan, blocks=(*plan.blocks[:k], other, *plan.blocks[k + 1 :]))


def _blocks(block: Block) -> Iterator[Block]:
    for name, value in {"skip": "identity", "spelling": "left", "after": "nothing"}.items():
        if getattr(block, name) != value:
            yield replace(block, **{name: value})
    if len(block.branches) > 1:
        for k in range(len(block.branches)):
            yield replace(block, branches=block.branches[:k] + block.branches[k + 1 :])
    for k, branch in enumerate(block.branches):
        for other in _branches(branch):
            yield replace(block, branches=(*block.branches[:k], other, *block.branches[k + 1 :]))


def _branches(branch: Branch) -> Iterator[Branch]:
    if branch.again:
        yield replace(branch, again=False)
    for k in range(1, len(branch.steps)):
        if len(branch.steps) > 2:
            yield replace(branch, steps=branch.steps[:k] + branch.steps[k + 1 :])
        if branch.steps[k] not in ("tanh", "linear"):
            yield replace(branch, steps=(*branch.steps[:k], "tanh", *branch.steps[k + 1 :]))
    for k, block in enumerate(branch.blocks):
        yield replace(branch, blocks=branch.blocks[:k] + branch.blocks[k + 1 :])
        for other in _blocks(block):
            yield replace(branch, blocks=(*branch.blocks[:k], other, *branch.blocks[k + 1 :]))
