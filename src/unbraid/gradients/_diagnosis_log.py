"""A diagnosis of a network that is being trained, from time to time."""

from dataclasses import dataclass
from typing import final

from unbraid._figures import Axes, Figure
from unbraid.gradients._diagnose import Diagnosis, diagnose
from unbraid.results.rows import Row
from unbraid.sweep import Log


@final
@dataclass(eq=False, repr=False)
class DiagnosisLog(Log[Diagnosis]):
    """A diagnosis of a network that is being trained, from time to time; arguments as for `unbraid.form.Log`.

        log = gradients.DiagnosisLog(unbraid.trace(network.eval(), x), batches, every=5, file="signal.jsonl")
        train.fit(network, data, on_epoch=log)        # or, in a loop of one's own, log(step)
        Trainer(callbacks=[log.lightning()])          # or in Lightning, after each epoch of training

    A writer gets the growth of variance, the gradients' ratio, the loudest branch, and the number of findings.
    """

    columns = (
        ("step", "{step:d}"),
        ("variance grows", "{variance grows:.3g}"),
        ("gradient first / last", "{gradient first over last:.3g}"),
        ("loudest branch / skip", "{loudest branch over skip:.3g}"),
        ("findings", "{found}"),
    )

    def take(self) -> Diagnosis:
        """The diagnosis of this moment."""
        return diagnose(self.form, self.batches, loss=self.loss)

    def _table_rows(self) -> list[Row]:
        rows = self.rows()
        for row, (_, diagnosis) in zip(rows, self.records, strict=True):
            row["found"] = ", ".join(dict.fromkeys(finding.what for finding in diagnosis.findings)) or "none"
        return rows

    def plot(self, *, ax: Axes | None = None) -> Figure:
        """The last record: variance and gradient by depth."""
        return self.records[-1][1].plot(ax=ax)
