"""An epoch as one launch: whether a training run can use it, and the launch itself."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.backends.base import Array
from nnkit.backends.cuda.cluster import PORTABLE_CLUSTER, launch, limits_of
from nnkit.backends.cuda.graph import home_of
from nnkit.backends.errors import BackendFallbackWarning
from nnkit.backends.recording import by_handler
from nnkit.backends.selection import switch
from nnkit.model import Model
from nnkit.one_launch.layout import THREADS, Layout, Recipe, layout_for, recipe_of
from nnkit.one_launch.text import NAME, kernel_text
from nnkit.optimizers import OptimizerState

_VARIABLE = "NNKIT_ONE_LAUNCH"


class EpochKernel:
    """A kernel that trains a network for an epoch; see `epoch_kernel_for`.

    Create it while the stream on which the network's arrays were created is current. It may run on any stream: the two
    streams wait for each other, so that the arrays are never in use on both at once.
    """

    def __init__(self, model: Model, state: OptimizerState, recipe: Recipe, layout: Layout) -> None:
        self.layout = layout
        self._model, self._recipe, self.vectors = model, recipe, recipe.vectors
        vectors = [state.arrays[name] for name in recipe.vectors]
        numbers = [state.numbers[name] for name in recipe.numbers]
        clock = [state.arrays["t"]] if "clock" in recipe.programs else []
        self._texts: dict[int, str] = {}  # by lanes
        self._own, self._numbers = [model.parameters.flat, *vectors, *clock], numbers
        self._home = home_of(model.parameters.flat)

    def works(self, X: Array) -> bool:
        """Whether the GPU can run it, tried by a launch without samples, which changes nothing; if not, warn.

        X are the samples to come: those whose rows are not aligned have a kernel of their own.
        """
        backend, outputs = self._model.backend, self._recipe.widths[-1]
        y, rates, logits = (backend.empty(shape, "float32") for shape in ((0, outputs), (0,), (0, outputs)))
        try:
            self.run(X, y, backend.empty((0,), "int64"), rates, logits)
        except Exception as error:
            if backend.out_of_memory(error) is not None or by_handler(error):
                raise
            _warn(error)
            return False
        return True

    def run(
        self,
        X: Array,
        y: Array,
        order: Array | None,
        rates: Array,
        logits: Array,
        members: Sequence[Array] | None = None,
    ) -> None:
        """Train for an epoch: update the parameters and the optimizer's state in place, on the current stream.

        All arrays are C-contiguous and on the network's device, in float32 except `order`. The call does not wait for
        the GPU. It can also train part of an epoch, as long as only the last minibatch is smaller than the batch size.

        Args:
            X: preprocessed samples, (samples, d_in).
            y: targets in the order of the epoch, with label smoothing applied, (samples, d_out).
            order: the row of X for each sample of the epoch, int64 (samples,), validated; None for the rows in order.
            rates: the learning rate of each step, (steps,), with steps = samples/batch size rounded up.
            logits: the result, (samples, d_out): the last layer's h̄ of each minibatch before its update, in the order
                of the epoch.
            members: the arrays of several networks of this shape, to train in this launch instead of the own, each with
                the bits that it has alone: parameters and each vector of the optimizer, (members, size), and its step
                count, (members,), if it has one. y, order and logits have a leading axis for members then.

        Raises ValueError for an array with another shape, dtype or memory order.
        """
        samples, widths = y.shape[-2], self._recipe.widths
        lead: tuple[int, ...] = ()
        state = self._own if members is None else list(members)
        if members is not None:
            lead = members[0].shape[:1]
            for own, array in zip(self._own, members, strict=True):
                _check("an array of the members", array, lead + own.shape)
        steps = -(-samples // self.layout.batch_size)
        _check("X", X, (X.shape[0] if order is not None else samples, widths[0]))
        outputs = (*lead, samples, widths[-1])
        for name, array, shape in (("y", y, outputs), ("rates", rates, (steps,)), ("logits", logits, outputs)):
            _check(name, array, shape)
        if order is not None:
            _check("order", order, (*lead, samples), "int64")
        lanes = 4 if widths[0] % 4 == 0 and X.data.ptr % 16 == 0 else 1
        if lanes not in self._texts:
            self._texts[lanes] = kernel_text(self._recipe, self.layout, self._model.parameters.starts, lanes)
        none, vectors = np.int64(0), 1 + len(self._recipe.vectors)  # 0 is a null pointer
        flat = self._model.parameters.flat
        given = [X, y, none if order is None else order, rates, *state[:vectors], *self._numbers, *state[vectors:]]
        given += [logits, np.int64(samples), np.int64(flat.shape[0])]
        blocks = self.layout.blocks * (1 if members is None else lead[0])
        assert self._home is not None
        with flat.device, self._home.in_order():
            launch(flat, self._texts[lanes], NAME, blocks, THREADS, self.layout.bytes, given)


def epoch_kernel_for(model: Model, state: OptimizerState, batch_size: int) -> EpochKernel | None:
    """The kernel that trains a network for an epoch in one launch, or None if the epoch must run step by step.

    It is for small networks on CuPy: all parameters, the optimizer's vectors and a minibatch with its activations must
    fit in the shared memory of a block or a cluster of blocks (`nnkit.one_launch.layout`). The result is also None for
    float64, dropout, clipping by norm, custom optimizer states, and steps so long that no gain is expected. The caller
    checks the rest: the kernel supports neither sample weights nor preprocessing, and each minibatch is one step. It
    keeps the current arrays of the model and the state. `NNKIT_ONE_LAUNCH=0` turns it off; values other than 0 and 1
    raise ValueError.

    >>> net = nnkit.Network([784, 30, 10], backend="numpy")
    >>> epoch_kernel_for(net, net.optimizer_state(), 10) is None
    True
    """
    if not switch(_VARIABLE, default=True) or not model.backend.name.startswith("cupy"):
        return None
    recipe = recipe_of(model, state)
    if recipe is None:
        return None
    limits = limits_of(model.parameters.flat)
    layout = layout_for(recipe, batch_size, limits)
    if layout is not None and layout.pays:
        return EpochKernel(model, state, recipe, layout)
    usual = layout_for(recipe, batch_size, replace(limits, cluster=PORTABLE_CLUSTER)) if limits.reason else None
    if usual is not None and usual.pays:
        _warn(f"{limits.reason}; {usual.blocks} is needed")
    return None


def _warn(reason: object) -> None:
    text = f"an epoch cannot be one launch, and is executed step by step: {reason}"
    warnings.warn(text, BackendFallbackWarning, stacklevel=3)


def _check(name: str, array: Any, shape: tuple[int, ...], dtype: str = "float32") -> None:
    """Raise ValueError unless the kernel can read this array."""
    if tuple(array.shape) != shape or array.dtype != dtype or not array.flags.c_contiguous:
        kind = "C-contiguous" if array.flags.c_contiguous else "not C-contiguous"
        found = f"{array.dtype} of shape {tuple(array.shape)}, {kind}"
        raise ValueError(f"{name} is {found}; expected {dtype} of shape {shape}, C-contiguous")
