"""The derivatives of a network's outputs by its inputs, for surrogate models, control and saliency maps.

Backpropagation ends at the inputs instead of the parameters: eq. 6 and 8 for each layer, with Δ = 1 for the output
whose derivative is wanted, and the chain rule through the preprocessing. No parameter's gradient is computed.
"""

from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.checks import is_of_nnkit, whole
from nnkit.kernels.activations import get_activation
from nnkit.layers import Dense, trainable_layers
from nnkit.model import Model
from nnkit.preprocessing import is_custom, preprocessed


def jacobian(model: Model, x: Any) -> Array:
    """The derivatives ∂h_k/∂x_j of all outputs by all inputs, (n, d_out, width), for samples x (n, width).

    h are the outputs of `forward`, such as the prediction of a regression or probabilities, and x the samples before
    any preprocessing; columns of a table are in the order of `features`. The result is on this network's backend, in
    its dtype. Dropout is inactive. Raises ValueError and TypeError like `forward`, and TypeError for a custom
    preprocessing without a method `backward`.

    >>> net = nnkit.Network([2, 3, 1], "tanh", "quadratic", seed=0, dtype="float64")
    >>> x, e = np.array([[0.5, -1.0]]), 1e-6
    >>> slope = (net.forward(x + [e, 0]) - net.forward(x - [e, 0])) / (2 * e)  # central difference
    >>> np.allclose(net.jacobian(x)[:, :, 0], slope)
    True
    """
    backend, k = model.backend, model.d_out
    one_hot = backend.asarray(np.eye(k)[:, None, :], model.dtype)
    return backend.xp.permute_dims(_pulled_back(model, x, one_hot), (1, 0, 2))


def input_gradient(model: Model, x: Any, output: int = 0) -> Array:
    """The gradient ∂h_k/∂x of one output, k = `output`, for samples x (n, width): (n, width); see `jacobian`.

    Raises ValueError if there is no such output.

    >>> net = nnkit.Network([4, 8, 3], "relu", seed=0)
    >>> net.input_gradient(np.ones((5, 4)), output=2).shape
    (5, 4)
    """
    k = whole("input_gradient", "output", output, 0)
    if k >= model.d_out:
        raise ValueError(f"input_gradient: output is {k}; expected an index below {model.d_out}")
    one_hot = model.backend.asarray(np.eye(model.d_out)[None, k : k + 1], model.dtype)
    gradient: Array = _pulled_back(model, x, one_hot)[0, ...]
    return gradient


def _pulled_back(model: Model, x: Any, delta: Array) -> Array:
    """The gradients (k, n, width) by samples x of k functions of the outputs, whose gradient is Δ (k, 1, d_out)."""
    place, rows = model.placement, model.checked(x)
    backend, h = place.backend, preprocessed(place.backend, model.dtype, model.preprocessing, rows)
    layers = list(zip(trainable_layers(model.to_logits), place.parameters.layers, strict=True))
    passes = []
    for layer, own in layers:
        h, saved = layer.forward(backend, h, own)
        passes.append(saved)
    z, outputs = (_repeated(backend, a, delta.shape[0]) for a in (h, model.output.outputs(backend, h)))
    delta = _own(backend, backend.xp.broadcast_to(delta, z.shape))
    delta = model.output.backward(backend, z, outputs, delta)
    for (layer, own), saved in zip(reversed(layers), reversed(passes), strict=True):
        if isinstance(layer, Dense):
            if layer.activation != "identity":
                delta = backend.elementwise(get_activation(str(layer.activation)).gradient, (saved[1], delta))
            delta = backend.matmul(delta, own["W"])
        else:
            unused = {name: backend.zeros(shape, model.dtype) for name, shape in layer.shapes.items()}
            parts = [
                layer.backward(backend, _own(backend, part), saved, own, unused, need_dx=True)
                for part in (delta[i, ...] for i in range(delta.shape[0]))
            ]
            delta = backend.xp.stack([_own(backend, part) for part in parts])
    return delta if model.preprocessing is None else _through_preprocessing(model.preprocessing, backend, delta)


def _repeated(backend: Backend, array: Array, k: int) -> Array:
    """An array for each of k outputs, (k, *shape)."""
    return _own(backend, backend.xp.broadcast_to(array, (k, *array.shape)))


def _own(backend: Backend, array: Array) -> Array:
    """A copy, since a custom layer may overwrite and return its Δ."""
    return backend.copy(array, backend.empty(array.shape, array.dtype))


def _through_preprocessing(preprocessing: Any, backend: Backend, delta: Array) -> Array:
    kind = type(preprocessing).__name__
    backward = getattr(preprocessing, "backward", None)
    inherited = is_of_nnkit(backward)  # that of another transform
    if backward is None or (is_custom(preprocessing) and inherited):
        raise TypeError(f"preprocessing is a {kind} without a method backward; derivatives by the inputs need it")
    return preprocessing.backward(backend, delta)
