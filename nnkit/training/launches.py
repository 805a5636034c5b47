"""An epoch of a small network on a GPU as one launch, where `nnkit.one_launch` has a kernel for it."""

from collections.abc import Callable, Sequence

import numpy as np

from nnkit.model import Model
from nnkit.one_launch import EpochKernel, epoch_kernel_for
from nnkit.optimizers import OptimizerState
from nnkit.training.meter import Meter
from nnkit.training.sources import ArraySource


class Launches:
    """Epochs of a source by a kernel that does all their steps; as many launches as the meter needs to hold logits."""

    def __init__(self, model: Model, source: ArraySource, meter: Meter, kernel: EpochKernel, batch_size: int) -> None:
        self.model, self.source, self.meter = model, source, meter
        self.batch_size, self._kernel = batch_size, kernel

    def run(self, rates: Sequence[float], after_step: Callable[[], None]) -> None:
        """Do an epoch that the source and the meter have started; `rates` has the learning rate of each step."""
        source, batch, start = self.source, self.batch_size, 0
        # A new array, of the stream that it is read on: an earlier launch may still be reading its own on another.
        on_device = self.model.backend.asarray(np.array(rates), self.model.dtype)
        while start < source.samples:
            room, left = self.meter.room_for(batch), source.samples - start
            n = left if left <= room else room // batch * batch  # only the last minibatch is smaller
            part, steps = slice(start, start + n), slice(start // batch, -(-(start + n) // batch))
            X = source.X[part, ...] if source.order is None else source.X
            order = None if source.order is None else source.order[part]
            self._kernel.run(X, source.y_in_order[part, ...], order, on_device[steps], self.meter.rows_for(n))
            self.meter.stored(n)
            start += n
            for _ in range(steps.stop - steps.start):
                after_step()


def launches_for(
    model: Model, source: ArraySource, meter: Meter, state: OptimizerState, batch_size: int
) -> Launches | None:
    """Launches, if there is a kernel for this network and nothing is between the source's numbers and a step."""
    if type(source) is not ArraySource or source.weight_columns:
        return None
    kernel = epoch_kernel_for(model, state, batch_size)
    if kernel is None or not (source.X.flags.c_contiguous and source.y.flags.c_contiguous):
        return None  # a kernel walks rows; recorded steps take any strides
    return Launches(model, source, meter, kernel, batch_size)
