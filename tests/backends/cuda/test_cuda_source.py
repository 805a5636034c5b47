"""The CUDA text of every formula compiles for real GPUs, by NVRTC alone: no GPU is needed."""

import re

import pytest

from nnkit.backends.cuda.formula_text import PRELUDE, KernelSignature, formula_source, kernel_name, kernel_source
from nnkit.backends.dtypes import FLOATS
from nnkit.backends.formula import Formula
from nnkit.kernels.sigmoidal import sigmoid, sigmoid_grad, tanh
from tests.support.kernels import FORMULAS, LAYOUTS, Variant, variant, variants
from tests.support.nvrtc import ARCHITECTURES, CompileError, compile_cuda, turn


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_formula_compiles(dtype: str, arch: int) -> None:
    chosen = chosen_for(dtype, arch)
    cubin = compile_cuda(PRELUDE + "".join(v.text for v in chosen), arch)
    assert cubin.startswith(b"\x7fELF")
    missing = [v.c_name for v in chosen if v.c_name.encode() + b"\0" not in cubin]
    assert not missing


def chosen_for(dtype: str, arch: int) -> list[Variant]:
    """A formula's four variants go round the types, and the types round the architectures."""
    shift = FLOATS.index(dtype)
    here = [(n + shift, key) for n, key in enumerate(FORMULAS) if turn(n + shift, arch)]
    return [list(variants(key, dtype))[n % 4] for n, key in here]


def test_every_formula_meets_every_type_and_variant_and_all_architectures_but_one() -> None:
    met = {(f, d, a) for d in FLOATS for a in ARCHITECTURES for f in chosen_for(d, a)}
    for formula in FORMULAS.values():
        mine = [(v, d, a) for v, d, a in met if v.formula is formula]
        assert {d for _, d, _ in mine} == set(FLOATS)
        assert len({a for _, _, a in mine}) == len(ARCHITECTURES) - 1
        assert len({v.name for v, _, _ in mine}) == 4


@pytest.mark.parametrize("dtype", FLOATS)
def test_variants_cover_lanes_index_types_and_layouts(dtype: str) -> None:
    for key, formula in FORMULAS.items():
        signatures = [v.signature for v in variants(key, dtype)]
        assert len({(s.lanes, s.index) for s in signatures}) == 4
        for j in range(len(formula.operands)):
            assert {s.layouts[j] for s in signatures} == set(LAYOUTS)


def test_invalid_text_does_not_compile() -> None:
    text = formula_source(sigmoid)
    compile_cuda(text, 90)
    with pytest.raises(CompileError, match='identifier "exq" is undefined'):
        compile_cuda(text.replace("exp(", "exq("), 90)


def test_kernel_of_a_function_that_cuda_has_too() -> None:
    # extern "C" void tanh(...) would be a second tanh.
    assert kernel_name(tanh.name).encode() in compile_cuda(formula_source(tanh), 90)


def test_names_that_are_not_c_identifiers() -> None:
    odd = Formula(lambda xp, Δ, class_: Δ * class_, "my activation: 2 Δ", ["Δ", "class"])
    text = formula_source(odd)
    assert text.isascii()
    assert kernel_name(odd.name).encode() in compile_cuda(text, 90)


def test_kernel_of_two_dtypes() -> None:
    for dtypes, real in ((("float32", "float64"), "double"), (("bfloat16", "float32"), "float")):
        signature = KernelSignature(dtypes, ("full", "full"), (dtypes[1],), 1)
        assert signature.real == real
        text = kernel_source(sigmoid_grad.program(), sigmoid_grad.name, signature)
        assert kernel_name(sigmoid_grad.name).encode() in compile_cuda(text, 90)


@pytest.mark.parametrize("dtype", FLOATS)
def test_lanes_move_16_bytes_at_a_time(dtype: str) -> None:
    lanes = {"float16": 8, "bfloat16": 8, "float32": 4, "float64": 2}[dtype]
    for count, wide in ((lanes, True), (1, False)):
        made = variant(sigmoid_grad, "sigmoid_grad", dtype, ("full", "row"), count)
        ptx = compile_cuda(PRELUDE + made.text, 90, ptx=True).decode()
        accesses = set(re.findall(r"\b(?:ld|st)\.global\S*", ptx))
        assert {_width(access) for access in accesses} == {16 if wide else {"float32": 4, "float64": 8}.get(dtype, 2)}
        assert {access[:2] for access in accesses} == {"ld", "st"}


def _width(access: str) -> int:
    """The bytes that a PTX access moves: 16 for ld.global.v4.f32."""
    vector = re.search(r"\.v(\d)", access)
    bits = re.search(r"(\d+)$", access)
    assert bits
    return int(bits[1]) // 8 * (int(vector[1]) if vector else 1)
