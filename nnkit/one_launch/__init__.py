"""A whole epoch of a small network in one kernel launch, its CUDA text generated from the network's own formulas.

`recipe` has the formulas of a step, `layout` finds what fits, `text` writes the kernel, `kernel` launches it.
"""

from nnkit.one_launch.kernel import EpochKernel, epoch_kernel_for

__all__ = ["EpochKernel", "epoch_kernel_for"]
