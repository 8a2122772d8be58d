"""Programs that trace in one thread and do something else in another; test_threads.py runs each in a process."""

import os
import sys
import threading

import torch
from torch import nn

import unbraid


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x):
        return x + self.dropout(torch.relu(self.linear(x)))


class Unfinished(Block):
    """The exporter cannot finish it, and prints its graph so far."""

    def forward(self, x):
        h = super().forward(x)
        return h * 2 if h.sum() > 0 else h


class Tracing(threading.Thread):
    """Traces a model again and again, from an event on, until another."""

    def __init__(self, model):
        super().__init__(daemon=True)
        # Made before: a fork in the middle of the first call of an operator keeps torch's own lock on it for ever.
        self.x = torch.ones(2, 8)
        self.model, self.begun, self.traces = model, threading.Event(), 0
        self.enough, self.ended = threading.Event(), threading.Event()

    def run(self):
        try:
            while not self.enough.is_set():
                self.begun.set()
                unbraid.trace(self.model, self.x)
                self.traces += 1
        finally:
            self.ended.set()

    def __enter__(self):
        self.start()
        self.begun.wait()
        return self

    def goes_on(self):
        """Whether it has traced less than three times; an error of a trace is the test's."""
        assert not self.ended.is_set(), "a trace failed"
        return self.traces < 3

    def __exit__(self, *_):
        self.enough.set()
        self.join()


def errors():
    """Every line that a thread writes on stderr arrives, whatever another thread traces meanwhile."""
    with Tracing(Unfinished().eval()) as tracing:
        number = 0
        while tracing.goes_on():
            sys.stderr.write(f"line {number}\n")
            number += 1
            tracing.enough.wait(0.001)
    say(number)


def numbers():
    """What a thread draws is what it would draw without the trace."""
    torch.manual_seed(0)
    drawn = []
    with Tracing(Block().train()) as tracing:
        torch.manual_seed(0)
        while tracing.goes_on():
            drawn.append(torch.rand(3).tolist())
            tracing.enough.wait(0.001)
    torch.manual_seed(0)
    say(drawn == [torch.rand(3).tolist() for _ in drawn], len(drawn))


def forks():
    """A process forked while another thread traces can trace as well."""
    with Tracing(Block().eval()) as tracing:
        for _ in range(3):
            child = os.fork()
            if child == 0:
                form = unbraid.trace(Block().eval(), torch.ones(2, 8))
                os._exit(0 if len(form.blocks) == 1 and "call_wrapped" not in nn.Module.__call__.__qualname__ else 1)
            assert os.waitpid(child, 0)[1] == 0
    say("forked", tracing.traces > 0)


def nested():
    """A fork inside of a trace, by the model itself."""

    class Forks(Block):
        def forward(self, x):
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            return super().forward(x)

    say(len(unbraid.trace(Forks().eval(), torch.ones(2, 8)).blocks))


def models():
    """A model that another thread runs gives what it gives alone."""
    model, x = Block().eval(), torch.randn(4, 8)
    wanted, seen = model(x), 0
    with Tracing(Unfinished().eval()) as tracing:
        while tracing.goes_on():
            assert torch.equal(model(x), wanted)
            seen += 1
            tracing.enough.wait(0.001)
    say("same", seen > 0)


if __name__ == "__main__":
    {one.__name__: one for one in (errors, numbers, forks, nested, models)}[sys.argv[1]]()
