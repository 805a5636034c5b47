"""Every optimizer and option, and their recursions in plain Python, one number at a time."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import nnkit
from nnkit.optimizers import Adagrad, AdamW, Lion, Optimizer, RMSprop

Memory = dict[str, float]

SHAPES = [(3, 5), (2, 3)]
LAYERS = [nnkit.Dense(d_in, d_out).shapes for d_out, d_in in SHAPES]
STEPS = 60
ALL: Any = {"l1": 0.02, "l2": 0.3, "weight_decay": 0.1, "clip_value": 5.0, "clip_norm": 4.0}
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "descent": lambda: nnkit.SGD(0.05),
    "descent-l1": lambda: nnkit.SGD(0.05, l1=0.02),
    "descent-l2": lambda: nnkit.SGD(0.05, l2=0.3),
    "descent-decay": lambda: nnkit.SGD(0.05, weight_decay=0.3),
    "descent-clip_value": lambda: nnkit.SGD(0.05, clip_value=5.0),
    "descent-clip_norm": lambda: nnkit.SGD(0.05, clip_norm=4.0),
    "descent-all": lambda: nnkit.SGD(0.05, **ALL),
    "momentum": lambda: nnkit.SGD(0.05, momentum=0.9),
    "momentum-l2": lambda: nnkit.SGD(0.05, momentum=0.8, l2=0.3),
    "nesterov": lambda: nnkit.SGD(0.05, momentum=0.9, nesterov=True),
    "nesterov-l2-clip_norm": lambda: nnkit.SGD(0.05, 0.8, True, l2=0.3, clip_norm=4.0),
    "nesterov-all": lambda: nnkit.SGD(0.05, 0.8, True, **ALL),
    "rmsprop": lambda: RMSprop(0.05),
    "rmsprop-momentum-l2": lambda: RMSprop(0.05, alpha=0.8, epsilon=1e-3, momentum=0.7, l2=0.3),
    "rmsprop-all": lambda: RMSprop(0.05, **ALL),
    "adagrad": lambda: Adagrad(0.5),
    "adagrad-l2-clip_value": lambda: Adagrad(0.5, epsilon=1e-3, l2=0.3, clip_value=5.0),
    "adagrad-all": lambda: Adagrad(0.5, **ALL),
    "adam": lambda: nnkit.Adam(0.05),
    "adam-l2": lambda: nnkit.Adam(0.05, 0.7, 0.95, epsilon=1e-3, l2=0.3),
    "adam-betas-0": lambda: nnkit.Adam(0.05, 0.0, 0.0),
    "adam-all": lambda: nnkit.Adam(0.05, **ALL),
    "adamw": lambda: AdamW(0.05),
    "adamw-clipped": lambda: AdamW(0.05, weight_decay=0.3, clip_value=5.0, clip_norm=4.0),
    "lion": lambda: Lion(0.05),
    "lion-all": lambda: Lion(0.05, 0.8, 0.95, **ALL),
}


def draw() -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Initial W, b of each layer, one after the other, and their gradients at each step, of very different sizes."""
    rng = np.random.default_rng(11)
    shapes = [shape for units, inputs in SHAPES for shape in ((units, inputs), (units,))]
    start = [rng.normal(size=shape) for shape in shapes]
    return start, [[rng.normal(0, 10 ** rng.uniform(-4, 2), shape) for shape in shapes] for _ in range(STEPS)]


def treated(o: Any, p: list[float], g: list[float], weight: list[bool]) -> tuple[list[float], list[float]]:
    """Parameters and gradients before an update: clipped by value, then by norm; L1 and L2; decay."""
    if o.clip_value is not None:
        g = [max(-o.clip_value, min(o.clip_value, x)) for x in g]
    if o.clip_norm is not None:
        norm = math.sqrt(math.fsum(x * x for x in g))
        g = [x * o.clip_norm / norm if norm > o.clip_norm else x for x in g]
    g = [x + (o.l1 * math.copysign(1, w) + o.l2 * w) * is_weight for x, w, is_weight in zip(g, p, weight, strict=True)]
    return [w * (1 - o.learning_rate * o.weight_decay * is_weight) for w, is_weight in zip(p, weight, strict=True)], g


def sgd(o: Any, p: float, g: float, t: int, memory: Memory) -> Any:
    """Eq. 17 with Polyak's momentum, or Nesterov's."""
    v = memory["v"] = o.momentum * memory.get("v", 0.0) + g
    return p - o.learning_rate * (g + o.momentum * v if o.nesterov else v)


def rmsprop(o: Any, p: float, g: float, t: int, memory: Memory) -> Any:
    """Tieleman and Hinton's, with PyTorch's momentum."""
    v = memory["v"] = o.alpha * memory.get("v", 0.0) + (1 - o.alpha) * g * g
    u = memory["u"] = o.momentum * memory.get("u", 0.0) + g / (math.sqrt(v) + o.epsilon)
    return p - o.learning_rate * u


def adagrad(o: Any, p: float, g: float, t: int, memory: Memory) -> Any:
    """Duchi, Hazan and Singer's."""
    s = memory["s"] = memory.get("s", 0.0) + g * g
    return p - o.learning_rate * g / (math.sqrt(s) + o.epsilon)


def adam(o: Any, p: float, g: float, t: int, memory: Memory) -> Any:
    """Kingma and Ba's algorithm 1."""
    m = memory["m"] = o.beta1 * memory.get("m", 0.0) + (1 - o.beta1) * g
    v = memory["v"] = o.beta2 * memory.get("v", 0.0) + (1 - o.beta2) * g * g
    return p - o.learning_rate * (m / (1 - o.beta1**t)) / (math.sqrt(v / (1 - o.beta2**t)) + o.epsilon)


def lion(o: Any, p: float, g: float, t: int, memory: Memory) -> Any:
    """Chen et al.'s algorithm 2."""
    m = memory.get("m", 0.0)
    memory["m"] = o.beta2 * m + (1 - o.beta2) * g
    return p - o.learning_rate * math.copysign(1, o.beta1 * m + (1 - o.beta1) * g)


RECURSIONS = {"SGD": sgd, "RMSprop": rmsprop, "Adagrad": adagrad, "Adam": adam, "AdamW": adam, "Lion": lion}


@functools.cache
def recursion(name: str) -> list[float]:
    """All parameters, W and b of each layer one after the other, after all steps."""
    start, gradients = draw()
    optimizer = OPTIMIZERS[name]()
    step = RECURSIONS[type(optimizer).__name__]
    p = [float(x) for a in start for x in a.flat]
    weight = [i % 2 == 0 for i, a in enumerate(start) for _ in a.flat]
    memories: list[Memory] = [{} for _ in p]
    for t, arrays in enumerate(gradients, start=1):
        p, g = treated(optimizer, p, [float(x) for a in arrays for x in a.flat], weight)
        p = [step(optimizer, w, x, t, memory) for w, x, memory in zip(p, g, memories, strict=True)]
    return p
