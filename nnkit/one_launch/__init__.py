"""A whole epoch of a small network in one kernel launch, with CUDA source generated from the network's formulas.

`layout` collects the formulas of a step and places its arrays in shared memory, `machine` has the hardware and the
loops, `text` writes the kernel and `kernel` launches it.
"""

from nnkit.one_launch.kernel import EpochKernel, epoch_kernel_for

__all__ = ["EpochKernel", "epoch_kernel_for"]
