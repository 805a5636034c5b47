"""nnkit with CuPy itself, over an emulation of CUDA: what a first run on a GPU does, and what can go wrong in it.

Each test is a process that has NumPy, CuPy and nothing else of what nnkit can use.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="CUDA is emulated on Linux and x86-64 only"
)

# Imported by each process before anything else.
SITE = """\
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
import importlib.util
find_spec = importlib.util.find_spec  # None for packages that are not installed
importlib.util.find_spec = lambda name, package=None: None if name in {blocked!r} else find_spec(name, package)
if {cuda}:
    from tests.support import emulated_cuda
    emulated_cuda.install()
"""
BLOCKED = (
    "nvmath", "ml_dtypes", "array_api_compat", "scipy", "tqdm", "threadpoolctl", "matplotlib", "torch", "numba", "jax",
    "safetensors", "pooch", "packaging",
)  # fmt: skip

HEAD = """\
import threading, warnings
import numpy as np, cupy, nnkit
from tests.support import emulated_cuda as cuda
warnings.simplefilter("error")
X, y = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32), np.arange(50) % 3

def network(backend, dtype="float64"):
    return nnkit.Network([6, 9, 3], "tanh", "softmax_cross_entropy", seed=0, dtype=dtype, backend=backend)

def trained(backend, dtype="float64", **options):
    net = network(backend, dtype)
    options = {"epochs": 3, "batch_size": 8, "optimizer": nnkit.Adam(0.01), "progress": False} | options
    cost = net.fit(X, y, **options)["cost"]
    return net.parameters.saved(net.parameters.flat), cost

def near(found, expected, off=1e-12):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=off)

def told(do, *expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = do()
    found = [f"{w.category.__name__}: {w.message}" for w in caught]
    assert len(found) == len(expected) and all(map(str.startswith, found, expected)), found
    return result
"""


class Python:
    """Processes over the emulation, which share the kernels that they compile for the host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kernels").mkdir()

    def run(self, *arguments: str, cuda: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "sitecustomize.py").write_text(SITE.format(blocked=BLOCKED, cuda=cuda))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("NNKIT", "CUPY"))}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)]), "NNKIT_ONE_LAUNCH": "0",
            "EMULATED_CACHE": str(self.folder / "kernels"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, *arguments], env=environment | variables, cwd=ROOT, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    def passes(self, code: str, **variables: str) -> None:
        done = self.run("-c", HEAD + code, cuda=True, **variables)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("there is no C++ compiler (c++, or what CXX names)")
    return Python(tmp_path_factory.mktemp("emulated"))


def test_the_doctor_tries_the_gpu(python: Python) -> None:
    done = python.run("-W", "error", "-m", "nnkit", "doctor", NNKIT_BACKEND="auto")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in ("backend cupy works: ", "Emulated GPU", "cuBLAS 12.9.1", "first kernel", "first recording"):
        assert text in done.stdout
    assert "NNKIT_BACKEND is 'auto': cupy is selected" in done.stdout


def test_trainings_on_a_gpu_are_those_of_numpy(python: Python) -> None:
    """By graphs, which take over at the second replay; the variable selects the backend."""
    python.passes(
        """
found = trained(None)
near(found, trained("numpy"))
assert cuda.calls.count("cudaGraphInstantiate") >= 3  # the trial's, that of batches of 8 and that of the last one
assert cuda.calls.count("cudaGraphLaunch") > 3 * 5
net, other = network(None), network("numpy")
for _ in range(3):
    near([float(net.train_step(X, y))], [float(other.train_step(X, y))])
near([net.backend.to_numpy(net.forward(X))], [other.forward(X)])
assert net.backend.to_numpy(net.predict(X)).tolist() == other.predict(X).tolist()
near(net.evaluate(X, y).values(), other.evaluate(X, y).values())
""",
        NNKIT_BACKEND="cupy",
    )


def test_each_fast_way_that_fails_has_a_way_back(python: Python) -> None:
    """One warning each, and the same numbers: one launch, which the emulation refuses; graphs; and both."""
    python.passes(
        """
import os
nnkit.get_backend("cupy")
expected = trained("numpy", "float32")
launch = "BackendFallbackWarning: an epoch cannot be one launch, and is executed step by step: "
graph = "BackendFallbackWarning: a recording did not become a CUDA graph, and is executed call by call: "
for one_launch, status, warned in ((1, None, [launch]), (0, 801, [graph] * 2), (0, 900, [graph] * 2)):
    os.environ["NNKIT_ONE_LAUNCH"] = str(one_launch)
    cuda.refuse["cudaStreamBeginCapture"] = [status] * 6 if status else []
    near(told(lambda: trained("cupy", "float32"), *warned), expected, 1e-5)
    assert not cuda.refuse["cudaStreamBeginCapture"]
"""
    )


def test_captures_that_another_thread_disturbs(python: Python) -> None:
    """Twice they are repeated; what is always disturbed is executed call by call."""
    python.passes(
        """
from nnkit.backends.recording import perform
gpu = nnkit.get_backend("cupy")
x = gpu.zeros((3,), "float32")

def recording(times):
    def disturb():
        if cuda.captured and len(done) < times:
            done.append(1)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    def other():
        try:
            cupy.cuda.Device(0).synchronize()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            assert error.status == 900

    done = []
    with gpu.recording() as tape:
        perform(disturb)
        gpu.elementwise(nnkit.sigmoid, (x,), out=x)
    return tape

expected = 0
for _ in range(4):
    expected = 1 / (1 + np.exp(-expected))
for times, warned in ((1, []), (2, []), (99, ["BackendFallbackWarning: a recording did not become a CUDA graph, and"])):
    x[...] = 0
    tape = recording(times)
    told(lambda: tape.replay(4), *warned)
    near([gpu.to_numpy(x)], [expected], 1e-6)
"""
    )


def test_two_threads_with_default_streams_of_their_own(python: Python) -> None:
    python.passes(
        """
gpu = nnkit.get_backend("cupy")
assert gpu.stream() == 2
expected = [trained("numpy"), trained("numpy", batch_size=16)]
found = {}

def work(i):
    for _ in range(2):
        found[i] = trained("cupy", batch_size=8 << i)

threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for i in range(2):
    near(found[i], expected[i])
assert 0 not in cuda.stream_of.values()  # not the one that all threads share
net, other = network("cupy"), network("numpy")
steps = [net.train_step(X, y) for _ in range(3)]
thread = threading.Thread(target=lambda: steps.append(net.train_step(X, y)))  # of a graph of this thread
cuda.calls.clear()
thread.start()
thread.join()
assert "cudaDeviceSynchronize" in cuda.calls
near([float(step) for step in steps], [float(other.train_step(X, y)) for _ in range(4)])
""",
        CUPY_CUDA_PER_THREAD_DEFAULT_STREAM="1",
    )


def test_a_fork_of_a_process_that_used_cuda(python: Python) -> None:
    python.passes(
        """
import os
net = network("cupy")
net.train_step(X, y)

def child():
    text = "CUDA was in use before this process was forked, and does not work in it; start processes by 'spawn'"
    for do in (
        lambda: net.train_step(X, y), lambda: net.predict(X), lambda: network("cupy"),
        lambda: net.backend.to_numpy(net.parameters.flat), lambda: nnkit.get_backend("cupy:0").asarray([1.0]),
    ):
        try:
            do()
        except RuntimeError as error:
            assert text in str(error), error
        else:
            raise AssertionError
    near(trained("numpy"), expected)

expected = trained("numpy")
pid = os.fork()
if pid == 0:
    try:
        child()
        os._exit(0)
    finally:
        import traceback
        traceback.print_exc()
        os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
net.train_step(X, y)
"""
    )


def test_products_that_cublas_does_not_support(python: Python) -> None:
    python.passes(
        """
gpu = nnkit.get_backend("cupy")
a = gpu.asarray(np.arange(12).reshape(3, 4), "float16")
cuda.refuse["cublasGemmEx"] = [15]
found = told(lambda: gpu.matmul(a, a.mT), "BackendFallbackWarning: cupy computes products of float16 in float32: ")
near([gpu.to_numpy(found)], [gpu.to_numpy(a) @ gpu.to_numpy(a).T])
"""
    )


@pytest.mark.parametrize("graphs", ["0", "1"])
def test_relu_inside_products(python: Python, graphs: str) -> None:
    python.passes(
        """
from nnkit.backends.cuda import epilogues
epilogues.LEAST = 1
X, y = np.random.default_rng(0).normal(size=(96, 16)).astype(np.float32), np.arange(96) % 8

def relu(backend):
    net = nnkit.Network([16, 40, 24, 8], "relu", seed=0, backend=backend)
    cost = net.fit(X, y, epochs=3, batch_size=24, optimizer=nnkit.SGD(0.1), progress=False)["cost"]
    return net.parameters.saved(net.parameters.flat), cost

expected = relu("numpy")
near(relu("cupy"), expected, 1e-5)
products = cuda.calls.count("cublasLtMatmul") - 3  # those of a first check
made = [name for name in cuda.calls if name.startswith("cublasLt") and name.endswith(("Create", "Destroy"))]
assert products == (2 * 2 * 12 + 2 if GRAPHS == "0" else 2 * (2 + 2) + 2), products  # two first uses of each layer
assert made.count("cublasLtMatmulDescCreate") == made.count("cublasLtMatmulDescDestroy") > 0
cuda.refuse["cublasLtMatmul"] = [15, 15]
near(told(lambda: relu("cupy"), "BackendFallbackWarning: cupy computes products of float32 with ReLU in two calls: "),
     expected, 1e-5)
assert not cuda.refuse["cublasLtMatmul"]
before = cuda.calls.count("cublasLtMatmul")
near(relu("cupy"), expected, 1e-5)
assert cuda.calls.count("cublasLtMatmul") == before
""".replace("GRAPHS", repr(graphs)),
        NNKIT_CUDA_GRAPHS=graphs,
    )


REMEDY = 'python -m pip install "cuda-toolkit[cublas,cudart,nvrtc]==CUDA.*"'


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("nvrtcCompileProgram", 6, f"a first kernel fails (CompileException: an emulated error); {REMEDY}"),
        (
            "cublasCreate_v2",
            1,
            f"a first product fails (CublasError: cublasCreate_v2 of cuBLAS failed with status 1); {REMEDY}",
        ),
        (
            "cudaGetDeviceCount",
            35,
            "the NVIDIA driver supports CUDA 13010, which is older than CuPy's ",
        ),
        (
            "cudaGetDeviceCount",
            100,
            "the NVIDIA driver works but finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES",
        ),
        ("cudaGetDeviceCount", 3, "CUDA does not start (cudaErrorInitializationError: "),
        ("cudaGetDeviceCount", 999, "CUDA does not start: cudaErrorUnknown"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_does_not_work_is_said_and_auto_takes_numpy(python: Python, name: str, status: int, message: str) -> None:
    python.passes(
        f"""
for _ in range(2):
    cuda.refuse[{name!r}] = [{status}] * 99
    try:
        nnkit.get_backend("cupy")
    except nnkit.BackendUnavailableError as error:
        message = {message!r}.replace("CUDA.", f"{{cupy.cuda.runtime.runtimeGetVersion() // 1000}}.")
        assert str(error).startswith(f"CuPy is installed, but {{message}}"), error
    else:
        raise AssertionError
name = told(lambda: nnkit.get_backend("auto").name, "BackendFallbackWarning: backend 'auto' uses numpy: CuPy is in")
assert name == "numpy"
"""
    )


def test_the_benchmarks_of_a_gpu(python: Python, tmp_path: Path) -> None:
    """With the copy, steps and an epoch; all kernels take too long to compile here."""
    sections = ["--sections", "ceilings", "steps", "epochs", "--contenders", "floor", "nnkit", "torch"]
    sections += ["--sizes", "6-5-3x4", "--precisions", "float32", "--epochs", "784-4-10x64"]
    done = python.run("-m", "bench.gpu", "--short", *sections, "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "emulated-gpu.json").read_text())
    assert (result["failed"], result["skipped"]) == ({}, [])
    about = result["machine"]
    assert (about["gpu"], about["compute_capability"]) == ("Emulated GPU", "9.0")
    assert None not in (about["cupy"], about["driver"], about["cuda_runtime"], about["nnkit"])
    assert result["ceilings"]["copy"]["minimum"] > 0
    assert result["ceilings"]["products"]["float32"]["minimum"] > 0
    rows = result["steps"]["6-5-3x4"]["float32"]
    for name in ("floor", "nnkit"):
        assert rows[name]["minimum"] > 0, rows[name]
    assert rows["torch"]["left_out"] == "not installed; python -m pip install torch"
    epoch = result["epochs"]["784-4-10x64"]["contenders"]["nnkit"]
    assert (epoch["way"], epoch["error"] < 1e-3) == ("graphs", True)


def test_without_a_driver(python: Python) -> None:
    """The same processes, with CUDA as it is here."""
    done = python.run("-W", "error", "-c", "import nnkit", cuda=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = python.run("-m", "bench.gpu", cuda=False)
    if done.returncode != 2:
        pytest.skip("there is a GPU")
    why = "CuPy is installed, but no NVIDIA driver found; install one, or use backend 'numpy'"
    assert (done.stdout, done.stderr) == ("", f"{why}\n")
    done = python.run("-m", "nnkit", "doctor", cuda=False, NNKIT_BACKEND="cupy")
    assert f"backend cupy does not work: {why}" in done.stdout
    done = python.run("-c", "import nnkit; print(nnkit.get_backend('auto').name)", cuda=False)
    assert done.stdout == "numpy\n"
    assert f"BackendFallbackWarning: backend 'auto' uses numpy: {why}" in done.stderr


def test_ranks_exchange_gradients_between_two_graphs(python: Python) -> None:
    """The sum over the host is a break between the graph of the gradients and that of the update."""
    python.passes("""if True:
        from nnkit.backends.recording import Break
        from nnkit.parallel import run
        from nnkit.training.together import ReplaysTogether
        made, record = [], ReplaysTogether._tape
        def watched(self, size, changes):
            made.append(record(self, size, changes))
            return made[-1]
        ReplaysTogether._tape = watched
        wanted = trained("numpy")
        for found in run(2, lambda comm: trained("cupy", comm=comm)):
            near(found[:1], wanted[:1])
            near(found[1:], wanted[1:])
        kinds = [(type(call.nodes[0].call) is Break, call.graph is not None) for call in made[0].calls]
        assert kinds == [(False, True), (True, False), (False, True)], kinds
    """)
