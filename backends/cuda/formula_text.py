"""CUDA source for a formula's program: one kernel that reads each input once and writes each output once.

Generating it needs neither a GPU nor CUDA headers. The inline function `formula` does the arithmetic in the type `R`
(float for the half-precision types and float32, else double); the kernel around it loads, calls and stores. A kernel
has two variants: `lanes` = 1 works with any alignment, `lanes` > 1 moves 16 bytes at a time.

The layout of an operand says how it is broadcast:
    full    one entry for each entry of the result
    row     one for each column, the same for all rows (a bias)
    column  one for each row, the same for all columns (a sample's weight)
    scalar  a single entry (a learning rate)
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnkit.backends.dtypes import ITEMSIZE, compute_type
from nnkit.backends.formulas.operations import OPERATIONS
from nnkit.backends.formulas.program import Program, Traceable

_TYPES = {"real": "R", "bool": "bool", "bits": "unsigned int"}
STORAGE = {"float16": "f16", "bfloat16": "bf16", "float32": "float", "float64": "double"}

# The half-precision types wrap bits, so no header is needed, and a host compiler can replace the two conversions.
# PTX rounds float32 to bfloat16 only from sm_80 on, so this rounding (to nearest, ties to even) works on the bits.
PRELUDE = """\
struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
__device__ inline float widen(f16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits)); return f; }
__device__ inline float widen(bf16 b) { return __uint_as_float((unsigned int)b.bits << 16); }
__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline void narrow(float x, f16 &h) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x)); }
__device__ inline void narrow(float x, bf16 &b) {
    unsigned int u = __float_as_uint(x);
    b.bits = (x != x) ? 0x7fc0u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
__device__ inline void narrow(float x, float &y) { y = x; }
__device__ inline void narrow(double x, double &y) { y = x; }
template <typename T, int N> struct alignas(sizeof(T) * N) Pack { T lane[N]; };
"""


@dataclass(frozen=True, slots=True)
class KernelSignature:
    """The parameters of a kernel's source besides its program."""

    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]
    out_dtypes: tuple[str, ...]
    lanes: int = 1
    index: str = "long long"  # "unsigned int" if it suffices: 64-bit integer division is slow on a GPU
    summed: int | None = None  # the index of the result whose columns are also summed

    @property
    def real(self) -> str:
        """The C type of the arithmetic."""
        return "double" if "float64" in map(compute_type, self.dtypes) else "float"


def widest_lanes(dtypes: Sequence[str]) -> int:
    """The number of entries of the widest of these dtypes in 16 bytes."""
    return 16 // max(ITEMSIZE[dtype] for dtype in dtypes)


def kernel_name(name: str) -> str:
    """The C name of a formula's kernel, distinct from CUDA functions such as tanh.

    >>> kernel_name("tanh"), kernel_name("my activation")
    ('nnkit_tanh', 'nnkit_my_activation')
    """
    return "nnkit_" + _identifier(name)


def _identifier(name: str) -> str:
    # Names may contain any Unicode letter, but CuPy writes the source to a file in the locale's encoding.
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _operand_names(program: Program) -> list[str]:
    return [f"in{j}_{_identifier(operand)}" for j, operand in enumerate(program.operands)]


def body(program: Program, real: str) -> str:
    """The arithmetic: `formula(operands..., results...)` with one line for each value of the program."""
    names = dict(enumerate(_operand_names(program)))
    parameters = [f"R {name}" for name in names.values()] + [f"R &out{j}" for j in range(len(program.outputs))]
    lines = []
    for number, value in enumerate(program.values):
        if value.op == "operand":
            continue
        if value.op == "constant":
            names[number] = f"{value.constant:.0f}u" if value.kind == "bits" else f"R({value.constant!r})"
            continue
        expression = OPERATIONS[value.op].cuda.format(*(names[a] for a in value.arguments))
        names[number] = f"v{number}"
        lines.append(f"    const {_TYPES[value.kind]} v{number} = {expression};")
    lines += [f"    out{j} = {names[number]};" for j, number in enumerate(program.outputs)]
    head = f"typedef {real} R;\n__device__ inline void formula({', '.join(parameters)}) {{\n"
    return head + "\n".join(lines) + "\n}\n"


def _load(name: str, dtype: str, layout: str, lanes: int) -> str:
    storage = STORAGE[dtype]
    index = {"full": "i", "row": "i % columns", "column": "i / columns", "scalar": "0"}[layout]
    if layout in ("column", "scalar"):
        return f"        const R {name} = widen({name}_p[{index}]);"
    pack = f"Pack<{storage}, {lanes}>"
    return f"        const {pack} {name} = *reinterpret_cast<const {pack} *>({name}_p + {index});"


@functools.lru_cache(maxsize=4096)
def kernel_source(program: Program, name: str, signature: KernelSignature) -> str:
    """The complete source of `kernel_name(name)`, `extern "C"`, with arguments (operands..., results..., n, columns).

    `n` is the number of entries of each result and `columns` the length of its last axis, both of the index type. With
    more than one lane, `n` (and `columns`, if an operand is a row or a column) must be a multiple of `lanes`, and the
    pointers of full operands, rows and results must be aligned to a pack.

    With a `summed` result, an array of type R follows the results: each thread writes `lanes` sums of the entries that
    it has computed. The stride of the grid must be a multiple of the row length, by the number of rows of this array.
    """
    lanes, index = signature.lanes, signature.index
    names = _operand_names(program)
    operands = list(zip(names, signature.dtypes, signature.layouts, strict=True))
    outs = [(f"out{j}", STORAGE[dtype]) for j, dtype in enumerate(signature.out_dtypes)]
    results = [f"r{j}" for j in range(len(outs))]
    inputs = [n if layout in ("column", "scalar") else f"widen({n}.lane[k])" for n, _, layout in operands]
    arguments = [f"const {STORAGE[dtype]} *{n}_p" for n, dtype, _ in operands]
    arguments += [f"{storage} *{out}_p" for out, storage in outs]
    before, inside, after = _sums(signature)
    arguments += ["R *sums_p"] if before else []
    lines = [
        f"typedef {index} I;",
        f'extern "C" __global__ void {kernel_name(name)}({", ".join(arguments)}, I n, I columns) {{',
        f"    const I stride = (I)gridDim.x * blockDim.x * {lanes};",
        f"    const I first = ((I)blockIdx.x * blockDim.x + threadIdx.x) * {lanes};",
        *before,
        "    for (I i = first; i < n; i += stride) {",
        *(_load(n, dtype, layout, lanes) for n, dtype, layout in operands),
        *(f"        Pack<{storage}, {lanes}> {out};" for out, storage in outs),
        f"        for (int k = 0; k < {lanes}; ++k) {{",
        f"            R {', '.join(results)};",
        f"            formula({', '.join(inputs + results)});",
        *(f"            narrow({r}, {out}.lane[k]);" for r, (out, _) in zip(results, outs, strict=True)),
        *inside,
        "        }",
        *(f"        *reinterpret_cast<Pack<{storage}, {lanes}> *>({out}_p + i) = {out};" for out, storage in outs),
        "    }",
        *after,
        "}",
    ]
    return PRELUDE + body(program, signature.real) + "\n".join(lines) + "\n"


def _sums(signature: KernelSignature) -> tuple[list[str], list[str], list[str]]:
    """The code of column sums before the loop, for each entry, and after the loop."""
    if signature.summed is None:
        return [], [], []
    lanes = signature.lanes
    return (
        [f"    R sums[{lanes}] = {{}};"],
        [f"            sums[k] += r{signature.summed};"],
        [f"    for (int k = 0; k < {lanes}; ++k) sums_p[first + k] = sums[k];"],
    )


def formula_source(formula: Traceable, dtype: str = "float32") -> str:
    """The CUDA source of a formula whose operands all have one dtype and the shape of the result.

    >>> from nnkit.kernels.sigmoidal import sigmoid
    >>> "exp(" in formula_source(sigmoid, "float64")
    True
    """
    program, count = formula.program(), len(formula.operands)
    outs = (dtype,) * len(program.outputs)
    signature = KernelSignature((dtype,) * count, ("full",) * count, outs, widest_lanes([dtype]))
    return kernel_source(program, formula.name, signature)
