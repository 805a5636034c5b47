"""CUDA text compiled by NVRTC: by pip's wheel alone, without a GPU, a driver, the CUDA toolkit or a header."""

from typing import Any

import pytest

# Turing, the oldest of CUDA 13 and without TensorFloat-32 and bfloat16; Ampere; Hopper, the first with clusters;
# Blackwell, of data centres and of desks.
ARCHITECTURES = (75, 80, 90, 100, 120)

# What CuPy gives NVRTC for a RawKernel of CupyBackend.
OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")
QUICK = "--Ofast-compile=max"  # takes a third of the time, and accepts and refuses the same texts


def turn(number: int, arch: int) -> bool:
    """Whether the text with this number goes to this architecture: texts go round them."""
    return number % len(ARCHITECTURES) == ARCHITECTURES.index(arch)


class CompileError(Exception):
    """NVRTC refused a text; the message is its log."""


def load_nvrtc(arch: int) -> Any:
    """The bindings of NVRTC; skips the test where NVRTC, or its support for this architecture, is missing."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed", exc_type=ImportError)
    try:
        status, architectures = nvrtc.nvrtcGetSupportedArchs()
    except RuntimeError as error:
        pytest.skip(f"the NVRTC library is missing, as in nvidia-cuda-nvrtc-cu12: {error}")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    if arch not in architectures:
        pytest.skip(f"this NVRTC does not compile for sm_{arch}")
    return nvrtc


def compile_cuda(text: str, arch: int, ptx: bool = False) -> bytes:
    """The cubin of a text for sm_`arch`, or its PTX; CompileError with NVRTC's log if it does not compile."""
    nvrtc = load_nvrtc(arch)
    success = nvrtc.nvrtcResult.NVRTC_SUCCESS
    status, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", 0, [], [])
    assert status == success
    try:
        target = [f"-arch=compute_{arch}"] if ptx else [f"-arch=sm_{arch}", QUICK]
        options = [option.encode() for option in (*OPTIONS, *target)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != success:
            raise CompileError(_output(nvrtc, program, "ProgramLog").decode())
        return _output(nvrtc, program, "PTX" if ptx else "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _output(nvrtc: Any, program: Any, what: str) -> bytes:
    status, size = getattr(nvrtc, f"nvrtcGet{what}Size")(program)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    output = bytes(size)
    (status,) = getattr(nvrtc, f"nvrtcGet{what}")(program, output)  # writes into `output`
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    return output
