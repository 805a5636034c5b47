"""Weights by PyTorch's names, compared with PyTorch."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

X = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
LAYERS = [nnkit.Dense(20, 41, "relu"), nnkit.Dropout(0.2), nnkit.Dense(41, 16, "tanh"), nnkit.Dense(16, 5)]


def _torch() -> Any:
    return pytest.importorskip("torch")


def _sequential(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(20, 41), nn.ReLU(), nn.Dropout(0.2), nn.Linear(41, 16), nn.Tanh(), nn.Linear(16, 5)
    ).eval()


def _outputs(torch: Any, model: Any) -> Any:
    with torch.no_grad():
        return model(torch.from_numpy(X)).numpy()


def test_a_sequential_loads_the_weights() -> None:
    torch = _torch()
    network, model = nnkit.Network(LAYERS, seed=0), _sequential(torch)
    state = network.state_dict()
    assert all(array.flags.c_contiguous for array in state.values())
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    np.testing.assert_allclose(_outputs(torch, model), network.logits(X), atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weights_of_a_sequential(dtype: str) -> None:
    torch = _torch()
    network, model = nnkit.Network(LAYERS, seed=0, dtype=dtype), _sequential(torch)
    network.load_state_dict(model.state_dict())
    np.testing.assert_allclose(network.logits(X), _outputs(torch, model), atol=2e-6)


def test_safetensors_of_pytorch_in_both_directions(tmp_path: Path) -> None:
    torch = _torch()
    numpy_files, torch_files = (pytest.importorskip(f"safetensors.{name}") for name in ("numpy", "torch"))
    network, model = nnkit.Network(LAYERS, seed=0), _sequential(torch)
    numpy_files.save_file(network.state_dict(), tmp_path / "nnkit.safetensors")
    model.load_state_dict(torch_files.load_file(tmp_path / "nnkit.safetensors"))
    np.testing.assert_allclose(_outputs(torch, model), network.logits(X), atol=2e-6)
    other = _sequential(torch)
    torch_files.save_file(other.state_dict(), tmp_path / "torch.safetensors")
    network.load_state_dict(numpy_files.load_file(tmp_path / "torch.safetensors"))
    np.testing.assert_allclose(network.logits(X), _outputs(torch, other), atol=2e-6)


def test_layers_of_other_names() -> None:
    network, other = nnkit.Network(LAYERS, seed=0), nnkit.Network(LAYERS, seed=1)
    for names in (["fc1", "fc2", "fc10"], ["input", "hidden", "output"]):
        network.load_state_dict(other.state_dict(names), names)
        np.testing.assert_array_equal(network.parameters.flat, other.parameters.flat)
    network = nnkit.Network(LAYERS, seed=0)
    network.load_state_dict(other.state_dict(["fc1", "fc2", "fc10"]))
    np.testing.assert_array_equal(network.parameters.flat, other.parameters.flat)


@pytest.mark.parametrize(
    ("sizes", "names", "clear"),
    [
        ([4, 4, 4, 4], ["inp", "hid", "out"], False),
        ([4, 4, 4, 4], ["a", "b", "c"], False),  # nobody knows
        ([4, 5, 6, 3], ["inp", "hid", "out"], True),  # by the shapes
        ([4, 5, 5, 5, 3], ["fc1", "fc2", "fc3", "out"], True),
        ([4, 5, 5, 5, 3], ["fc1", "mid", "fc3", "out"], False),
        ([4, 4, 4, 4], ["encoder.0", "encoder.2", "decoder.0"], False),
        ([4] * 12, [f"layers.{i}" for i in range(11)], True),
        ([4, 4, 4, 4], ["fc2", "fc1", "fc3"], False),
    ],
)
@pytest.mark.parametrize("through", ["module", "file"])
def test_the_order_of_layers(sizes: list[int], names: list[str], clear: bool, through: str, tmp_path: Path) -> None:
    """The outputs of a PyTorch model, or an error; files are sorted by names."""
    torch = _torch()
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    state: dict[str, Any] = {}
    z = torch.linspace(-1, 1, sizes[0])
    for i, (name, layer) in enumerate(zip(names, layers, strict=True)):
        state |= {f"{name}.{field}": value.detach() for field, value in layer.state_dict().items()}
        z = layer(z if i == 0 else torch.tanh(z))
    if through == "file":
        pytest.importorskip("safetensors.torch").save_file(state, tmp_path / "state.safetensors")
        state = pytest.importorskip("safetensors.numpy").load_file(tmp_path / "state.safetensors")
    network = nnkit.Network(sizes, "tanh", "quadratic", seed=0)
    if clear or (names[0] == "fc2" and through == "file"):
        network.load_state_dict(state)
    else:
        with pytest.raises(ValueError, match="in an unclear order"):
            network.load_state_dict(state)
        network.load_state_dict(state, names)
    if names[0] != "fc2":
        np.testing.assert_allclose(network.forward(np.linspace(-1, 1, sizes[0])[None])[0], z.detach(), atol=1e-6)


def test_dtypes_of_tensors() -> None:
    torch = _torch()
    network, model = nnkit.Network(LAYERS, seed=0), _sequential(torch)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        model = model.to(dtype)
        network.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(network.parameters.W[1], model[3].weight.detach().float().numpy())
    before = network.parameters.vector
    for value, error, message in (
        (np.inf, ValueError, r"3.bias holds inf at \[2\]; expected finite numbers in float32"),
        (np.nan, ValueError, r"3.bias holds nan at \[2\]"),
        (1e300, ValueError, r"3.bias holds inf at \[2\]"),
        (1j, TypeError, "0.weight has dtype complex128; expected real numbers"),
    ):
        state = {name: np.array(a, type(value)) for name, a in network.state_dict().items()}
        state["3.bias"][2] = value
        with pytest.raises(error, match=message):
            network.load_state_dict(state)
    np.testing.assert_array_equal(network.parameters.vector, before)


def test_a_layer_without_bias() -> None:
    network = nnkit.Network([2, 3], cost="quadratic", seed=0)
    network.parameters.b[0][...] = 7
    network.load_state_dict({"0.weight": np.ones((3, 2), np.float64)})
    assert network.parameters.W[0].tolist() == [[1, 1]] * 3
    assert network.parameters.b[0].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), r"0.weight is missing; expected \(41, 20\)"),
        (lambda s: s.update({"0.weight": s["0.weight"].T}), r"0.weight has shape \(20, 41\); expected \(41, 20\)"),
        (lambda s: s.update({"0.running_mean": np.ones(3)}), "state has the entry '0.running_mean'"),
        (lambda s: s.update({"9.weight": np.ones((2, 2))}), "state has 4 layers, 0, 3, 5, 9; expected 3"),
        (lambda s: [s.pop("0.weight"), s.pop("0.bias")], "state has 2 layers, 3, 5; expected 3"),
    ],
)
def test_an_unfit_state_changes_nothing(change: Any, message: str) -> None:
    network = nnkit.Network(LAYERS, seed=0)
    before, state = network.parameters.vector, nnkit.Network(LAYERS, seed=1).state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        network.load_state_dict(state)
    np.testing.assert_array_equal(network.parameters.vector, before)


def test_an_unclear_order_needs_names() -> None:
    network = nnkit.Network([2, 2, 2], cost="quadratic", seed=0)
    state = network.state_dict(["input", "hidden"])
    with pytest.raises(ValueError, match=r"the layers input, hidden, in an unclear order; give names="):
        network.load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"state has no first and the unknown input; expected the layers first, hidden"
    ):
        network.load_state_dict(state, ["first", "hidden"])
    with pytest.raises(ValueError, match=r"names is \['a'\]; expected 2 different names"):
        network.state_dict("a")
