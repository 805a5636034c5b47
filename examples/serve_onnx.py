"""
An exported network, served by ONNX Runtime
===========================================

``net.to_onnx`` writes a network with its preprocessing and class names to one file. ONNX Runtime computes its
predictions where neither Python nor nnkit is needed: in C++, Java, JavaScript or on a phone; here in Python.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import nnkit

try:
    import onnxruntime
except ImportError:
    sys.exit("this example needs ONNX Runtime: python -m pip install onnx onnxruntime")

X, y, X_test, y_test = nnkit.data.split(*nnkit.data.digits(), seed=0)
names = [f"digit {k}" for k in range(10)]
net = nnkit.Network([64, 100, 10], "relu", seed=0, classes=names, preprocessing=nnkit.data.Normalization.fit(X))
net.fit(X, [names[k] for k in y], epochs=15, optimizer="adam", progress=False)

path = Path(tempfile.mkdtemp()) / "digits.onnx"
net.to_onnx(path)
print(f"{path.name} has {path.stat().st_size / 1000:.0f} kB")

# What a server does: open the model once, then ask it for each request, of any number of samples.
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
print(f"input {given.name!r} {given.shape}, outputs {[output.name for output in session.get_outputs()]}")
labels, probabilities = session.run(["label", "probabilities"], {given.name: X_test.astype(np.float32)})
one, _ = session.run(["label", "probabilities"], {given.name: X_test[:1].astype(np.float32)})

accuracy = float(np.mean(labels == np.array(names)[y_test]))
difference = float(np.abs(probabilities - net.predict_proba(X_test)).max())
print(f"the first sample is {one[0]!r}; accuracy {accuracy:.3f}; largest difference to nnkit's {difference:.0e}")
