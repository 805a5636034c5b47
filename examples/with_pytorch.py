"""
nnkit inside a PyTorch program
==============================

nnkit inside a PyTorch program: arrays are shared in both directions by DLPack, without copies.

::

    python examples/with_pytorch.py                       on the CPU
    NNKIT_BACKEND=cupy python examples/with_pytorch.py    on the GPU, with a PyTorch that has CUDA

nnkit's kernels compute a layer of a PyTorch model, and its gradient flows back into PyTorch's autograd.
"""

import sys
from typing import Any

import nnkit

try:
    import torch
except ImportError:
    print("this example needs PyTorch: python -m pip install torch", file=sys.stderr)
    sys.exit(2)


def to_nnkit(tensor: Any) -> Any:
    """View a tensor's memory as an array of the selected backend."""
    return nnkit.get_backend().xp.from_dlpack(tensor.detach().contiguous())


def to_torch(array: Any) -> Any:
    """View an array's memory as a tensor."""
    return torch.from_dlpack(array)


class Dense(torch.autograd.Function):  # type: ignore[misc]
    """A dense layer with a sigmoid, computed by nnkit forward (eq. 2) and backward (eq. 5, 6, 8, 10, 12)."""

    @staticmethod
    def forward(ctx: Any, x: Any, W: Any, b: Any) -> Any:
        h = to_torch(nnkit.dense_forward(to_nnkit(x), to_nnkit(W), to_nnkit(b), activation="sigmoid"))
        ctx.save_for_backward(x, W, h)  # so that PyTorch detects in-place changes before the backward pass
        return h

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        if torch.is_grad_enabled():  # create_graph=True: autograd cannot differentiate nnkit's kernels
            raise RuntimeError("nnkit's layer has no second derivatives")
        delta, x, W, h = map(to_nnkit, (delta, *ctx.saved_tensors))
        return tuple(map(to_torch, nnkit.dense_backward(delta, x, W, h, activation="sigmoid")))


def main() -> float:
    """The largest difference between the gradients of nnkit's layer and PyTorch's."""
    torch.manual_seed(0)
    device = "cuda" if nnkit.get_backend().name.startswith("cupy") else "cpu"
    x, W, b = (torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in ((8, 5), (3, 5), (3,)))
    shared = to_nnkit(x)
    same = to_torch(shared).data_ptr() == x.data_ptr()
    print(f"{tuple(x.shape)} float64 on {device}: {'shared' if same else 'copied'} between PyTorch and {type(shared)}")
    ours = torch.autograd.grad(Dense.apply(x, W, b).square().sum(), (x, W, b))
    theirs = torch.autograd.grad(torch.sigmoid(x @ W.T + b).square().sum(), (x, W, b))
    error = max(float((a - t).abs().max()) for a, t in zip(ours, theirs, strict=True))
    print(f"largest difference of the gradients: {error:.1e}")
    assert same
    return error


if __name__ == "__main__":
    main()
