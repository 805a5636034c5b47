"""
One formula in four languages
=============================

An activation is written once, as a Python expression. nnkit traces it, and makes of it a loop that numba compiles for
the CPU, a CUDA kernel, and a graph of ONNX operators. Without any of them, NumPy's functions compute it.
"""

import matplotlib.pyplot as plt
import numpy as np

import nnkit
from nnkit.backends.cpu.native.formulas import native_source
from nnkit.backends.cuda.formula_text import formula_source


@nnkit.formula
def squared_relu(xp, z):  # type: ignore[no-untyped-def]
    """max(z, 0)² (So et al., NeurIPS 2021)."""
    return xp.maximum(z, 0.0) ** 2


print(squared_relu(np.array([-1.0, 0.5, 2.0])))

# %%
# **For the CPU**, a loop that reads and writes each entry once. ``NNKIT_NATIVE=0`` turns this off; the formula then is
# two calls of NumPy with preallocated arrays.

print(native_source(squared_relu, "float32"))

# %%
# **For a GPU**, a kernel in CUDA C++. Only its end is shown here, the part that is this formula's own.

text = formula_source(squared_relu, "float32")
print(text[text.index("typedef float R;") :])

# %%
# **For other runtimes**, ONNX operators, in the file of a network that uses it. An activation also needs its
# derivative, which registering it compares with the complex step.


@nnkit.formula
def squared_relu_grad(xp, h, delta):  # type: ignore[no-untyped-def]
    """f′ ⊙ Δ = 2 √h ⊙ Δ, from the saved output h."""
    return 2 * xp.sqrt(h) * delta


nnkit.register_activation("squared_relu", squared_relu, squared_relu_grad)
net = nnkit.Network([4, 8, 3], "squared_relu", seed=0)
print("operators:", *(node.op_type for node in net.to_onnx().graph.node))

# %%
# And the formula itself:

z = np.linspace(-2, 2, 200)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(z, squared_relu(z), label="squared_relu")
axes.plot(z, squared_relu_grad(squared_relu(z), np.ones_like(z)), label="its derivative")
axes.legend(frameon=False)
nnkit.unregister_activation("squared_relu")
plt.show()
