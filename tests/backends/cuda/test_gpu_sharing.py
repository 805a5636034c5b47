"""A GPU that is shared: with PyTorch without copies, with a stream of the caller's own, a second GPU, and files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends import Backend, get_backend
from nnkit.one_launch import epoch_kernel_for
from nnkit.state import training_state
from tests.conftest import gpu_backend

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(120, 12)).astype(np.float32), np.arange(120) % 5


@pytest.fixture
def gpu() -> Backend:
    return gpu_backend()


@pytest.fixture
def torch() -> Any:
    """PyTorch that sees a GPU."""
    module = pytest.importorskip("torch", reason="torch is not installed")
    if not module.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return module


def network(backend: Any, **options: Any) -> nnkit.Network:
    layers = [nnkit.Dense(12, 30, "tanh"), nnkit.Dropout(0.25), nnkit.Dense(30, 5)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=1, backend=backend, **options)


def small(backend: Any) -> nnkit.Network:
    """A network that trains an epoch in one launch, as it has no dropout."""
    return nnkit.Network([12, 30, 5], "tanh", "softmax_cross_entropy", seed=1, backend=backend)


def numbers(net: nnkit.Network) -> Array:
    """The parameters as files have them."""
    return net.parameters.saved(net.parameters.flat)


def bits(net: nnkit.Network) -> list[bytes]:
    """All that a training changes."""
    arrays = [numbers(net), *training_state(net).values()]
    return [a.tobytes() for a in arrays]


def fit(net: nnkit.Network, x: Any = X, y: Any = LABELS, **options: Any) -> nnkit.History:
    defaults: dict[str, Any] = {"epochs": 3, "batch_size": 16, "optimizer": nnkit.Adam(0.01), "progress": False}
    return net.fit(x, y, **defaults | options)


# --- PyTorch ----------------------------------------------------------------------------------------------------


def test_results_are_tensors_without_a_copy(gpu: Backend, torch: Any) -> None:
    net = network(gpu)
    cost, gradients = net.gradients(X, LABELS)
    results = [net.forward(X), net.logits(X[:3]), net.predict(X), cost, *sum(gradients, ()), net.parameters.W[0]]
    for array in results:
        tensor = torch.from_dlpack(array)
        assert tensor.data_ptr() == array.data.ptr
        assert tensor.device.type == "cuda"
        assert tuple(tensor.shape) == array.shape
        np.testing.assert_array_equal(tensor.cpu().numpy(), gpu.to_numpy(array))
    torch.from_dlpack(net.parameters.b[1]).fill_(7.0)
    torch.cuda.synchronize()
    np.testing.assert_array_equal(gpu.to_numpy(net.parameters.b[1]), np.full(5, 7.0))


def test_tensors_are_samples_and_labels(gpu: Backend, torch: Any) -> None:
    expected, given = network(gpu), network(gpu)
    x, y = torch.from_numpy(X).cuda(), torch.from_numpy(LABELS).cuda()
    weights = np.linspace(0.5, 1.5, len(X))
    fit(expected, sample_weight=weights, validation_data=(X, LABELS))
    fit(given, x, y, sample_weight=torch.from_numpy(weights).cuda(), validation_data=(x, y))
    assert bits(given) == bits(expected)
    for question in ("forward", "predict", "logits"):
        found, wanted = getattr(given, question)(x), getattr(expected, question)(X)
        np.testing.assert_array_equal(gpu.to_numpy(found), gpu.to_numpy(wanted))
    costs = [float(net.train_step(*batch)) for net, batch in ((given, (x, y)), (expected, (X, LABELS)))]
    assert costs[0] == costs[1]
    assert given.evaluate(x, y) == expected.evaluate(X, LABELS)


def test_gpu_tensors_are_accepted_by_networks_on_the_cpu(torch: Any) -> None:
    net, given = network("numpy"), network("numpy")
    fit(net)
    fit(given, torch.from_numpy(X).cuda(), torch.from_numpy(LABELS).cuda())
    assert bits(given) == bits(net)


def test_pending_work_of_pytorch_is_waited_for(gpu: Backend, torch: Any) -> None:
    net, big, late = network(gpu), torch.randn(4096, 4096, device="cuda"), torch.from_numpy(X).cuda()
    wanted = gpu.to_numpy(net.forward(X))
    side = torch.cuda.Stream()
    for stream in (torch.cuda.current_stream(), side):
        x = torch.zeros(X.shape, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            for _ in range(30):  # some hundred milliseconds, in which x is still zeros
                big = (big @ big) / 4096
            x.copy_(late)
            found = net.forward(x)
            np.testing.assert_array_equal(torch.from_dlpack(found).cpu().numpy(), wanted)


def test_a_loader_of_tensors(gpu: Backend, torch: Any) -> None:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X).cuda(), torch.from_numpy(LABELS).cuda())
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    expected, given = network(gpu), network(gpu)
    fit(expected, shuffle=False)
    fit(given, loader, None)
    np.testing.assert_allclose(numbers(given), numbers(expected), rtol=0, atol=1e-6)


# --- streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fit", "fit by one launch", "train_step", "forward"])
def test_a_custom_stream(gpu: Backend, what: str) -> None:
    cupy = gpu.xp
    made = small if what == "fit by one launch" else network
    expected, given = made(gpu), made(gpu)

    def work(net: nnkit.Network, x: Any) -> Array:
        if what.startswith("fit"):
            fit(net, x, epochs=1)
        for _ in range(4 if what == "train_step" else 0):
            net.train_step(x, LABELS, net.optimizer)
        result: Array = np.array(gpu.to_numpy(net.forward(x)))
        return result

    wanted = work(expected, gpu.asarray(X))
    big, x, late = cupy.ones((4096, 4096), np.float32), gpu.zeros(X.shape, "float32"), gpu.asarray(X)
    gpu.synchronize()
    for stream in (cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream()):
        given = made(gpu)
        x[...] = 0
        gpu.synchronize()
        with stream:
            for _ in range(30):  # some hundred milliseconds, in which x is still zeros
                big = cupy.matmul(big, big) / 4096
            cupy.copyto(x, late)
            found = work(given, x)
        assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    # A network that was recorded on one stream works on another.
    np.testing.assert_allclose(work(given, late), work(expected, late), rtol=0, atol=1e-4)


@pytest.mark.parametrize("one_launch", ["0", "1"])
def test_streams_that_change_between_epochs(gpu: Backend, monkeypatch: pytest.MonkeyPatch, one_launch: str) -> None:
    monkeypatch.setenv("NNKIT_ONE_LAUNCH", one_launch)
    cuda = gpu.xp.cuda
    expected, given = small(gpu), small(gpu)
    assert (epoch_kernel_for(given, given.optimizer_state(), 16) is not None) == (one_launch == "1")
    streams = [cuda.Stream(non_blocking=True) for _ in range(2)]
    for optimizer in (nnkit.Adam(0.01), None, None):
        fit(expected, optimizer=optimizer)
    with streams[0]:
        fit(given)
    with streams[1]:
        fit(given, optimizer=None)
    try:
        fit(given, optimizer=None, callbacks=[lambda net, history: streams[history.epochs % 2].use()])
    finally:
        cuda.Stream.null.use()
    assert bits(given) == bits(expected)


# --- two GPUs ---------------------------------------------------------------------------------------------------


def test_a_second_gpu(gpu: Backend) -> None:
    cupy = gpu.xp
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    second = get_backend("cupy:1")
    first, other = network(gpu), network(second)
    fit(first)
    fit(other)
    assert other.parameters.flat.device.id == 1
    assert cupy.cuda.Device().id == 0  # what was current still is
    for x in (X, gpu.asarray(X), second.asarray(X)):  # samples of either are taken
        result = other.forward(x)
        assert result.device.id == 1
        np.testing.assert_allclose(second.to_numpy(result), gpu.to_numpy(first.forward(x)), rtol=0, atol=1e-6)
    before = bits(first)
    assert first.to(second).parameters.flat.device.id == 1
    assert bits(first) == before
    for net in (first, other):
        fit(net, epochs=1, optimizer=None)
    np.testing.assert_allclose(numbers(first), numbers(other), rtol=0, atol=1e-6)
    with pytest.raises(nnkit.BackendMismatchError, match=r"'cupy' and .* on 'cupy:1'"):
        nnkit.sigmoid_grad(gpu.asarray(X), second.asarray(X))


# --- files ------------------------------------------------------------------------------------------------------


def test_files_move_between_cpu_and_gpu(gpu: Backend, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    net = network(gpu, preprocessing=nnkit.data.Normalization.fit(X))
    fit(net)
    net.save(tmp_path / "gpu.safetensors")
    loaded = nnkit.load(tmp_path / "gpu.safetensors", "numpy")
    np.testing.assert_array_equal(numbers(loaded), numbers(net))
    np.testing.assert_allclose(loaded.forward(X), gpu.to_numpy(net.forward(X)), rtol=0, atol=1e-5)
    loaded.save(tmp_path / "cpu.safetensors")
    back = nnkit.load(tmp_path / "cpu.safetensors", gpu)
    assert isinstance(back.parameters.flat, gpu.xp.ndarray)
    np.testing.assert_array_equal(numbers(back), numbers(loaded))
    np.testing.assert_array_equal(gpu.to_numpy(back.forward(X)), gpu.to_numpy(net.forward(X)))


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.3), nnkit.AdamW(0.01, clip_norm=1.0)])
def test_a_continued_training_equals_an_uninterrupted_one(gpu: Backend, tmp_path: Path, optimizer: Any) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    options: dict[str, Any] = {"optimizer": optimizer, "validation_data": (X[:30], LABELS[:30]), "schedule": "cosine"}

    def stop(net: Any, history: nnkit.History) -> None:
        if history.epochs == 3:
            raise KeyboardInterrupt

    whole, killed, resumed = network(gpu), network(gpu), network(gpu)
    expected = fit(whole, epochs=6, **options)
    assert fit(killed, epochs=6, checkpoint=path, callbacks=[stop], **options).interrupted
    history = fit(resumed, epochs=6, checkpoint=path, resume=True, **options)
    assert history.epochs == 6
    assert bits(resumed) == bits(whole)
    assert history["cost"] == expected["cost"]
    on_host = nnkit.load(path, "numpy")
    assert bits(on_host) == bits(whole)
    # Either goes on where the other was, the CPU but for rounding.
    fit(whole, epochs=1, optimizer=None)
    fit(on_host, epochs=1, optimizer=None)
    np.testing.assert_allclose(numbers(on_host), numbers(whole), rtol=0, atol=1e-4)


def test_copies_of_a_network_are_independent(gpu: Backend) -> None:
    import copy
    import pickle

    net = network(gpu)
    fit(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        before = bits(net)
        assert bits(other) == before
        fit(other, epochs=1, optimizer=None)
        assert bits(net) == before
        assert bits(other) != before
