"""CuPy where there is no GPU: what is missing is said, and what the backend asks of CuPy is something CuPy takes."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest

import nnkit
from nnkit.backends import BackendUnavailableError, get_backend, selection
from nnkit.backends.cuda.check import check_libraries, trial
from nnkit.backends.cuda.cublas import Handles
from nnkit.backends.cuda.device import CupyDevice
from nnkit.backends.recording import Tape, active_tape
from nnkit.kernels.sigmoidal import sigmoid, sigmoid_grad
from nnkit.kernels.updates import momentum_descent
from tests.support.accumulating import add_column_sums, add_product
from tests.support.host_device import HostDevice

# What pip must be told, word for word.
INSTALL = 'python -m pip install "cupy-cuda13x>=14" "cuda-toolkit[cublas,cudart,nvrtc]==13.*"'


def python(*lines: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python in a process of their own."""
    environment = {name: value for name, value in os.environ.items() if name != "NNKIT_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=environment | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def cupy() -> Any:
    """CuPy itself, on a machine without a GPU."""
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError:
        return module
    pytest.skip("there is a GPU")


def test_import_loads_no_optional_packages() -> None:
    heavy = ("cupy", "matplotlib", "sklearn", "scipy", "torch", "safetensors", "ml_dtypes")
    done = python("import sys, nnkit", f"print([name for name in {heavy!r} if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_get_backend_says_that_there_is_no_gpu(cupy: Any) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("cupy")
    message = "CuPy is installed, but "
    if cupy.cuda.runtime.driverGetVersion() == 0:
        message += "no NVIDIA driver found; install one, or use backend 'numpy'"
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value.__cause__, cupy.cuda.runtime.CUDARuntimeError)


def test_variable_that_asks_for_cupy_is_named_in_the_error(cupy: Any) -> None:
    done = python("import nnkit", "nnkit.get_backend()", NNKIT_BACKEND="cupy")
    assert done.returncode == 1
    assert "BackendUnavailableError: NNKIT_BACKEND: CuPy is installed, but " in done.stderr


@pytest.mark.parametrize("detail", ["x", "-1", "1.0", " 0"])
def test_a_device_must_be_a_number(detail: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"^cupy:{detail}: expected a device number, as in cupy:0$"):
        get_backend(f"cupy:{detail}")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ModuleNotFoundError(name, name=name)", f"CuPy is not installed: {INSTALL}"),
        ("ImportError('libcudart.so is missing')", "CuPy is installed but does not import: libcudart.so is missing"),
        (
            "ModuleNotFoundError('no fastrlock', name='fastrlock')",
            "CuPy is installed but does not import: no fastrlock",
        ),
    ],
)
def test_cupy_that_does_not_import(error: str, message: str) -> None:
    done = python(
        "import sys, nnkit",
        "class Blocked:",
        "    def find_spec(self, name, path=None, target=None):",
        "        if name == 'cupy':",
        f"            raise {error}",
        "sys.meta_path.insert(0, Blocked())",
        "nnkit.use_backend('cupy')",
    )
    assert f"BackendUnavailableError: {message}" in done.stderr


@pytest.mark.parametrize(("runtime", "wanted"), [(12090, "12"), (13000, "13")])
@pytest.mark.parametrize("missing", ["cublas", "nvrtc"])
def test_a_missing_library_is_named(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, missing: str, runtime: int, wanted: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"no lib{missing}.so\nsearched everywhere")

    monkeypatch.setattr(cupy.cuda.runtime, "runtimeGetVersion", lambda: runtime)
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", fail if missing == "nvrtc" else lambda: (12, 9))
    monkeypatch.setattr("cuda.pathfinder.load_nvidia_dynamic_lib", fail)
    with pytest.raises(BackendUnavailableError) as caught:
        check_libraries(cupy)
    assert str(caught.value) == (
        f"CuPy is installed, but a library of the CUDA toolkit is missing: no lib{missing}.so; "
        f'python -m pip install "cuda-toolkit[cublas,cudart,nvrtc]=={wanted}.*"'
    )


def test_a_cupy_that_is_too_old(cupy: Any) -> None:
    done = python("import cupy, nnkit", "cupy.__version__ = '13.6.0'", "nnkit.use_backend('cupy')")
    assert f"BackendUnavailableError: CuPy is 13.6.0; expected 14 or newer: {INSTALL}" in done.stderr


def test_cupy_alone_suffices(cupy: Any) -> None:
    """With nothing beside it and NumPy a network trains over the host's memory, as where all is installed."""
    done = python(
        "import sys",
        "class Blocked:",
        "    def find_spec(self, name, path=None, target=None):",
        "        if name in ('nvmath', 'ml_dtypes', 'array_api_compat', 'scipy', 'tqdm', 'threadpoolctl'):",
        "            raise ModuleNotFoundError(name, name=name)",
        "sys.meta_path.insert(0, Blocked())",
        "import cupy, numpy as np, nnkit",
        "from tests.support.host_device import HostDevice",
        "from nnkit.backends import selection",
        "from nnkit.step import step_for",
        "selection._made['cupy'] = HostDevice(cupy)",
        "nets = [nnkit.Network([4, 8, 4], seed=0, dtype='float64', backend=b) for b in ('numpy', 'cupy')]",
        "for net in nets:",
        "    step = step_for(net, 4, net.optimizer_state('adam'))",
        "    for array in (step.x, step.y):",
        "        net.backend.copy(net.backend.asarray(np.eye(4)), array)",
        "    for _ in range(3):",
        "        step.run()",
        "weights = [net.backend.to_numpy(net.parameters.flat) for net in nets]",
        "np.testing.assert_allclose(*weights, rtol=1e-12)",
        "print('trained')",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"


class WithoutDevice(HostDevice):
    """The backend over CuPy's own arrays whose memory is the host's, with CuPy's own calls: up to CUDA, they work."""

    def __init__(self, cupy: Any) -> None:
        super().__init__(cupy)
        self.handles = Handles(cupy, 1 << 20)

    def copy(self, source: Any, out: Any) -> Any:
        return CupyDevice.copy(self, source, out)

    def kernel(self, text: str, name: str) -> Any:  # type: ignore[override]
        return CupyDevice.kernel(self, text, name)


def test_every_call_is_one_that_cupy_takes(cupy: Any) -> None:
    backend = WithoutDevice(cupy)
    a, b, row, index = (backend.empty(s, d) for s, d in (((6, 4), "f4"), ((4, 6), "f4"), ((4,), "f4"), ((2,), "i8")))
    with backend.recording() as tape:
        backend.matmul(a, b)
        backend.matmul(a, b, out=backend.empty((6, 6), "f4"))
        backend.matmul(b.mT, b)
        backend.sum(a, axis=0, out=row)
        backend.max(a, axis=-1, keepdims=True, out=backend.empty((6, 1), "f4"))
        backend.take(a, index)
        backend.take_at(a, index[0], backend.empty((2, 4), "f8"))
        backend.put_at(a[:2], index[0], backend.empty((6, 4), "f4"))
        backend.advance(index[0], 2)
        add_product(backend, a, b, backend.empty((6, 6), "f4"), row[0])
        add_column_sums(backend, a, row, backend.empty((), "f4"))
        backend.copy(row, row)
        backend.elementwise(sigmoid_grad, (a, row), out=a)
        backend.elementwise(sigmoid_grad, (b.mT, row), out=b.mT)
    assert (
        len(tape.calls) == 15
    )  # the two takes are one; the last one copies its strided operand, and the result to where it belongs
    # Without a device or cuBLAS nothing more can be done; a wrong argument would be a TypeError or ValueError.
    for call in tape.calls:
        with pytest.raises((cupy.cuda.runtime.CUDARuntimeError, ImportError, RuntimeError)):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_says_why_cuda_does_not_work(cupy: Any) -> None:
    """Whatever it does first; the parent goes on, and so does NumPy in the child."""
    done = python(
        "import os, cupy, numpy as np, nnkit",
        "from contextlib import nullcontext",
        "from nnkit.backends.cuda.device import CupyDevice",
        "from nnkit.backends.recording import Node, Tape",
        "from tests.backends.cuda.test_cupy import WithoutDevice",
        "backend = WithoutDevice(cupy)",
        "backend._process, backend._device = os.getpid(), nullcontext()",
        "type(backend).here = CupyDevice.here",
        "a = backend.zeros((2, 2), 'float32')",
        "tape = Tape(around=backend.here)",  # as CupyDevice makes it
        "tape.nodes.append(Node(lambda: None))",
        "work = [lambda: backend.asarray([1.0]), lambda: backend.zeros((2,), 'float32'), lambda: backend.copy(a, a),",
        "        lambda: backend.matmul(a, a), lambda: backend.sum(a), lambda: nnkit.sigmoid(a), tape.replay,",
        "        lambda: backend.recording(), lambda: backend.to_numpy(a), lambda: backend.synchronize(),",
        "        lambda: backend.describe(), lambda: backend.release(), lambda: backend.has_room(1),",
        "        lambda: nnkit.Network([3, 2], backend=backend)]",
        "nnkit.backends.selection._made['cupy'] = backend",
        "assert backend.here() is backend._device",
        "child = os.fork()",
        "if child:",
        "    assert backend.here() is backend._device",
        "    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
        "for name in ('asarray', 'zeros', 'empty', 'synchronize', 'to_numpy', 'describe', 'recording'):",
        "    setattr(type(backend), name, getattr(CupyDevice, name))",
        "for do in work:",
        "    try:",
        "        do()",
        "    except RuntimeError as error:",
        "        print(error, flush=True)",
        "    else:",
        "        print(work.index(do), flush=True)",
        "nnkit.Network([3, 2], backend='numpy').forward(np.zeros((1, 3)))",
        "os._exit(3)",
    )
    assert done.returncode == 3, done.stderr
    (line, *others) = done.stdout.splitlines()
    assert line == (
        "cupy: CUDA was in use before this process was forked, and does not work in it; start processes by 'spawn', as "
        "in multiprocessing.get_context('spawn')"
    )
    assert others == [line] * 13


def test_operands_are_copied_only_if_necessary(cupy: Any) -> None:
    backend = WithoutDevice(cupy)
    memory = backend.empty((5, 8), "f4")
    p, g, rate = backend.empty((4, 8), "f4"), backend.empty((4, 8), "f4"), backend.empty((), "f4")

    def copies(formula: Any, operands: tuple[Any, ...], out: Any) -> int:
        with backend.recording() as tape:
            backend.elementwise(formula, operands, out=out)
        return len(tape.calls) - 1

    assert copies(momentum_descent, (p, g, g, rate, rate), (p, g)) == 0
    assert copies(sigmoid, (memory[1:],), memory[1:]) == 0
    assert copies(sigmoid, (memory[1:],), memory[:4]) == 1  # what one thread writes, another still reads
    assert copies(sigmoid_grad, (p, memory[0]), memory[1:]) == 0
    assert copies(sigmoid_grad, (p, memory[1]), memory[1:]) == 1
    assert copies(sigmoid_grad, (p.mT, memory[0, :4]), backend.empty((8, 4), "f4")) == 1  # not in C order
    assert copies(sigmoid_grad, (p, memory[:4]), p[::-1]) == 1  # the result, not in C order
    assert copies(sigmoid, (rate,), rate) == 0


def test_errors_name_the_formula_and_what_is_wrong(cupy: Any) -> None:
    backend = WithoutDevice(cupy)
    a, b = backend.empty((2, 3), "f4"), backend.empty((4,), "f4")
    with pytest.raises(ValueError, match=r"^sigmoid_grad: operands do not broadcast: s \(2, 3\), delta \(4,\)$"):
        backend.elementwise(sigmoid_grad, (a, b))
    with pytest.raises(ValueError, match=r"^sigmoid: out has shape \(4,\); expected \(2, 3\)$"):
        backend.elementwise(sigmoid, (a,), out=b)
    with pytest.raises(ValueError, match=r"^momentum_descent: out has 1 array\(s\); expected 2$"):
        backend.elementwise(momentum_descent, (b, b, b, b, b), out=b)
    with pytest.raises(TypeError, match="sigmoid: out has dtype int32; expected one of float16,"):
        backend.elementwise(sigmoid, (b,), out=backend.empty((4,), "i4"))
    with pytest.raises(TypeError, match="sigmoid: operands are complex128; expected one of float16,"):
        backend.elementwise(sigmoid, (backend.empty((4,), "c16"),))
    with pytest.raises(TypeError, match="a has dtype int64"):
        backend.matmul(backend.empty((2, 2), "i8"), a)


def test_the_trial_runs_all_operations_of_training(host: Any) -> None:
    took = trial(host, host.xp)
    assert list(took) == ["first kernel", "first product", "first recording"]
    assert all(re.fullmatch(r"\d+\.\d\d s", text) for text in took.values())


@pytest.mark.parametrize(("name", "step"), [("run_program", "kernel"), ("_multiply", "product")])
def test_a_failed_trial_has_the_remedy(host: Any, monkeypatch: pytest.MonkeyPatch, name: str, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        if active_tape() is None:
            raise RuntimeError("nvrtc: error: failed to open cuda_runtime.h\nand more")

    monkeypatch.setattr(type(host), name, fail)
    monkeypatch.setattr(host.xp.cuda.runtime, "runtimeGetVersion", lambda: 12090)
    with pytest.raises(BackendUnavailableError) as caught:
        trial(host, host.xp)
    assert str(caught.value) == (
        f"CuPy is installed, but a first {step} fails (RuntimeError: nvrtc: error: failed to open cuda_runtime.h); "
        'python -m pip install "cuda-toolkit[cublas,cudart,nvrtc]==12.*"'
    )


def test_the_trial_detects_a_recording_that_does_not_replay(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tape, "replay", lambda tape: None)
    with pytest.raises(BackendUnavailableError, match=r"^CuPy is installed, but a first recording gives .*, not 2\.0$"):
        trial(host, host.xp)


def test_a_gpu_is_tried_before_it_is_used(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for `auto` gets NumPy with the reason where a first kernel fails."""
    monkeypatch.setattr("nnkit.backends.cuda.check.checked_cupy", lambda detail: (cupy, 0))
    monkeypatch.setattr("nnkit.backends.cupy_backend.CupyBackend", lambda cupy, device: HostDevice(cupy))

    def fail(*_: object) -> None:
        raise BackendUnavailableError("CuPy is installed, but a first kernel fails")

    monkeypatch.setattr("nnkit.backends.cuda.check.trial", fail)
    monkeypatch.setattr(selection, "_auto", None)
    with pytest.warns(nnkit.BackendFallbackWarning, match="backend 'auto' uses numpy: .* a first kernel fails"):
        assert get_backend("auto").name == "numpy"
    monkeypatch.setattr(selection, "_auto", None)
