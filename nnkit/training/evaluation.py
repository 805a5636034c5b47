"""Evaluation: cost and metrics of a network over samples, some thousand at a time."""

import math
from collections.abc import Sequence

from nnkit.metrics import Metric
from nnkit.model import ROWS, Model
from nnkit.training.meter import Meter
from nnkit.training.minibatches import Source


def evaluate(model: Model, source: Source, metrics: Sequence[Metric] = ()) -> dict[str, float]:
    """The mean cost over the source's samples, the accuracy if the network classifies, and the metrics."""
    known = source.samples or ROWS
    meter = Meter(model, known, min(known, ROWS), metrics)
    measured = _measured(model, source, meter, careful=not source.repeatable)
    if source.repeatable and math.isinf(measured["cost"]):
        measured = _measured(model, source, meter, careful=True)
    return measured


def _measured(model: Model, source: Source, meter: Meter, careful: bool) -> dict[str, float]:
    meter.start(*source.start(None), careful=careful, relative=source.samples is None)
    for batch in source.batches(ROWS):
        x, lent = batch.inputs(), model.recorded_pass(model.placement, batch.samples)
        meter.add(model.propagate(x) if lent is None else lent.it.logits(x), batch)
        if lent is not None:
            model.placement.leave(lent)
    return meter.read()
