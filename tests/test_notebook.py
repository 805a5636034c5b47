"""The notebook of the lecture's equations runs from top to bottom, and has them all."""

import re
from typing import Any

import pytest

from tests.support import ROOT

REASON = "the notebook is executed with nbclient and ipykernel: python -m pip install nbclient ipykernel"
NOTEBOOK = ROOT / "examples" / "equations.ipynb"


@pytest.fixture(scope="module")
def nbformat() -> Any:
    """Imported here, in one process and not in all: it takes 3 seconds."""
    return pytest.importorskip("nbformat", reason=REASON)


@pytest.fixture(scope="module")
def committed(nbformat: Any) -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(nbformat: Any, committed: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook with its outputs; what Jupyter and IPython keep for later goes into a folder of the test."""
    nbclient = pytest.importorskip("nbclient", reason=REASON)
    pytest.importorskip("ipykernel", reason=REASON)
    folder = tmp_path_factory.mktemp("jupyter")
    notebook = nbformat.from_dict(committed)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            environment.setenv(name, str(folder / name))
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return notebook


def outputs(notebook: Any, kind: str) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == kind]


def printed(notebook: Any, stream: str) -> str:
    return "".join(output.text for output in outputs(notebook, "stream") if output.name == stream)


def test_no_cell_fails_or_warns(executed: Any) -> None:
    assert ["\n".join(output.traceback) for output in outputs(executed, "error")] == []
    assert printed(executed, "stderr") == ""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_every_comparison_is_within_rounding(executed: Any) -> None:
    errors = re.findall(r"(?<!squared) error (\d\.\de[+-]\d\d)$", printed(executed, "stdout"), re.MULTILINE)
    assert len(errors) >= 30
    assert max(map(float, errors)) <= 1e-14


def test_the_cosine_is_denoised(executed: Any) -> None:
    errors = re.findall(r"step +(\d+): mean squared error (\S+)", printed(executed, "stdout"))
    assert (errors[0][0], errors[-1][0]) == ("0", "499")
    assert float(errors[0][1]) > 0.4  # ½ is the mean square of a cosine
    assert float(errors[-1][1]) < 1e-4
    assert sum("image/png" in output.data for output in outputs(executed, "display_data")) == 1
    assert sum("image/png" in output.data for output in outputs(executed, "execute_result")) == 1


def test_every_equation_is_displayed_with_its_number(committed: Any) -> None:
    text = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    tags = re.findall(r"\\tag\{([\d, ]+)\}", text)
    assert {int(number) for tag in tags for number in tag.split(",")} == set(range(1, 23))


def test_the_committed_file_is_valid_and_has_no_outputs(nbformat: Any, committed: Any) -> None:
    nbformat.validate(committed)
    assert len({cell.id for cell in committed.cells}) == len(committed.cells)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count, dict(cell.metadata)) for cell in code] == [([], None, {})] * len(code)
    assert set(committed.metadata) == {"kernelspec"}
    assert (committed.nbformat, committed.metadata.kernelspec.name) == (4, "python3")
