"""Sets larger than the memory that a process may have train: as an iterable, and as a file of rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are those of Linux")

MEMORY = 400_000_000  # bytes of address space; Python, NumPy and a network take some 270 MB of it
WIDTH = 784
SAMPLES = 3 * MEMORY // 2 // (4 * WIDTH)

LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
import numpy as np, nnkit
net = nnkit.Network([{WIDTH}, 10], cost="softmax_cross_entropy", seed=0)
"""
STREAM = f"""
def minibatches():
    rng = np.random.default_rng(0)
    for start in range(0, {SAMPLES}, 1000):
        X = np.repeat(rng.normal(size=(min(1000, {SAMPLES} - start), 4)).astype("f4"), {WIDTH} // 4, axis=1)
        yield X, np.argmax(X[:, ::{WIDTH} // 4], axis=1)
history = net.fit(minibatches, epochs=1, optimizer=nnkit.SGD(0.01), progress=False)
print(history["accuracy"][0] > 0.9)
"""
ROWS = f"""
X, y = nnkit.data.open_npy("images.npy"), np.load("labels.npy")
assert X.shape == ({SAMPLES}, {WIDTH})
history = net.fit(X, y, epochs=1, batch_size=1000, optimizer=nnkit.SGD(0.1), progress=False, validation_data=(X, y))
print(history["validation_accuracy"][0] > 0.9)
"""
WHOLE = f"np.ones(({SAMPLES}, {WIDTH}), 'f4')"


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # LLVM takes more address space than there is.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NNKIT_NATIVE": "0"}
    return subprocess.run(
        [sys.executable, "-c", LIMITED + script],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_data_set_exceeds_the_memory_limit(tmp_path: Path) -> None:
    assert "MemoryError" in run(WHOLE, tmp_path).stderr


def test_training_on_an_iterable(tmp_path: Path) -> None:
    done = run(STREAM, tmp_path)
    assert done.stdout == "True\n", done.stderr


def test_training_on_a_file_of_rows(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 10, SAMPLES)
    np.save(tmp_path / "labels.npy", labels)
    with open(tmp_path / "images.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (SAMPLES, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, SAMPLES, 10_000):
            rows = np.zeros((len(labels[start : start + 10_000]), WIDTH), "f4")
            rows[np.arange(len(rows)), labels[start : start + 10_000]] = 1  # the label is where the 1 stands
            file.write(rows.tobytes())
    assert os.path.getsize(tmp_path / "images.npy") > 1.49 * MEMORY
    done = run(ROWS, tmp_path)
    assert done.stdout == "True\n", done.stderr
