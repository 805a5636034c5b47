"""How the gallery runs the examples: in a short form, and with the pictures that they write to files."""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

import nnkit

_FOLDER = Path(tempfile.mkdtemp(prefix="nnkit-gallery-"))
_SHORT = {
    "denoise_cosine": [str(_FOLDER / "denoised.png")],
    "mnist_seeds": ["--seeds", "0", "1", "--epochs", "2", "--picture", str(_FOLDER / "seeds.png")],
    "nielsen": ["--rows", "3", "4", "--epochs", "40", "--seeds", "0"],
}
_NEEDS_MNIST = ("mnist_seeds", "nielsen", "relu_halving")
ORDER = (
    "xor", "denoise_cosine", "decision_boundaries", "digits_first_layer", "early_stopping", "schedules",
    "ensemble_spread", "sweeps", "surrogate", "mixed_table", "preset_and_boosting", "serve_onnx", "four_languages",
    "own_loop", "with_pytorch", "mnist_seeds", "relu_halving", "nielsen",
)  # fmt: skip


def executed() -> str:
    """A pattern for the names of the examples that run: those of MNIST only where its files are."""
    left_out = ["relu_halving"]  # half a minute, without a shorter form
    try:
        nnkit.data.mnist()
    except FileNotFoundError:
        left_out = list(_NEEDS_MNIST)
    left_out += [] if importlib.util.find_spec("torch") else ["with_pytorch"]
    return rf"/(?!{'|'.join(left_out)})\w+\.py"


class Order:
    """The place of an example in the gallery; those that are not named come last, by name."""

    def __repr__(self) -> str:
        return "Order()"

    def __call__(self, filename: str) -> tuple[int, str]:
        name = Path(filename).stem
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)


class Arguments:
    """The command line of each example."""

    def __repr__(self) -> str:
        return "Arguments()"

    def __call__(self, conf: Any, script: dict[str, Any]) -> list[str]:
        return _SHORT.get(Path(script["src_file"]).stem, [])


class Pictures:
    """The pictures that an example has written to the folder that its command line names."""

    def __repr__(self) -> str:
        return "Pictures()"

    def __call__(self, block: Any, variables: dict[str, Any], conf: dict[str, Any]) -> str:
        names = []
        for path in sorted(_FOLDER.glob("*.png")):
            target = variables["image_path_iterator"].next()
            shutil.move(path, target)
            names.append(target)
        return str(figure_rst(names, conf["src_dir"]))
