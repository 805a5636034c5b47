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

from nnkit.backends.cuda.launch import Rider
from nnkit.backends.dtypes import ITEMSIZE, compute_type
from nnkit.backends.formulas.operations import OPERATIONS
from nnkit.backends.formulas.program import Program, Traceable, row_stages

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


# How to merge two values of a reduction, and the neutral element. NaN is greater than everything.
MERGED = {"sum": "a + b", "max": "(b > a || b != b) ? b : a"}
NEUTRAL = {"sum": "0", "max": "-__uint_as_float(0x7f800000u)"}


@dataclass(frozen=True, slots=True)
class KernelSignature:
    """The parameters of a kernel's source besides its program.

    Attributes:
        summed: the index of the result whose columns are also summed.
        group: the threads for each row, of a program that reduces rows.
        columns: the indices of results with one entry for each row.
        placed: the indices of results whose first row in their array is read on the device.
        riders: work that the first thread does as well.
    """

    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]
    out_dtypes: tuple[str, ...]
    lanes: int = 1
    index: str = "long long"  # "unsigned int" if it suffices: 64-bit integer division is slow on a GPU
    summed: int | None = None
    group: int = 0
    columns: tuple[int, ...] = ()
    placed: tuple[int, ...] = ()
    riders: tuple[Rider, ...] = ()

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


@functools.lru_cache(maxsize=4096)
def kernel_source(program: Program, name: str, signature: KernelSignature) -> str:
    """The complete source of `kernel_name(name)`, `extern "C"`, with arguments (operands..., results..., n, columns).

    `n` is the number of entries of each result and `columns` the length of its last axis, both of the index type. With
    more than one lane, `n` (and `columns`, if an operand is a row or a column) must be a multiple of `lanes`, and the
    pointers of full operands, rows and results must be aligned to a pack.

    With a `summed` result, an array of type R follows the results: each thread writes `lanes` sums of the entries that
    it has computed. The stride of the grid must be a multiple of the row length, by the number of rows of this array.
    The first rows of `placed` results follow `columns`, then the arguments of riders.
    """
    return _Text(program, name, signature).source()


class _Text:
    """The parts of a kernel's source."""

    def __init__(self, program: Program, name: str, signature: KernelSignature) -> None:
        self.program, self.name, self.signature = program, name, signature
        self.operands = list(zip(_operand_names(program), signature.dtypes, signature.layouts, strict=True))
        self.outs = [(f"out{j}", STORAGE[dtype]) for j, dtype in enumerate(signature.out_dtypes)]

    def source(self) -> str:
        signature, sums = self.signature, self.signature.summed is not None
        parameters = [f"const {STORAGE[dtype]} *{n}_p" for n, dtype, _ in self.operands]
        parameters += [f"{storage} *{out}_p" for out, storage in self.outs]
        parameters += [*["R *sums_p"] * sums, "I n", "I columns"]
        parameters += [f"const long long *at{j}" for j in signature.placed]
        functions, rides = [], []
        for k, rider in enumerate(signature.riders):
            names = [f"rider{k}_{i}" for i in range(len(rider.types))]
            parameters += [f"{kind}{name}" for kind, name in zip(rider.types, names, strict=True)]
            functions.append(f"namespace rider{k} {{\n{rider.functions}}}\n" if rider.functions else "")
            statement = rider.statement.format(*names).replace("SPACE", f"rider{k}")
            rides.append(f"    if (blockIdx.x == 0 && threadIdx.x == 0) {{ {statement} }}")
        own, loop = self._by_rows() if signature.group else (body(self.program, signature.real), self._by_entries())
        lines = [
            f"typedef {signature.index} I;",
            f'extern "C" __global__ void {kernel_name(self.name)}({", ".join(parameters)}) {{',
            *(f"    {self.outs[j][1]} *const out{j}_to = out{j}_p + *at{j} * columns;" for j in signature.placed),
            *rides,
            *loop,
            "}",
        ]
        return PRELUDE + own + "".join(functions) + "\n".join(lines) + "\n"

    def _by_entries(self) -> list[str]:
        """The loop over entries, and the sums of columns in it."""
        lanes, summed = self.signature.lanes, self.signature.summed
        results = [f"r{j}" for j in range(len(self.program.outputs))]  # one of them may only be summed
        inputs = [n if layout in ("column", "scalar") else f"widen({n}.lane[k])" for n, _, layout in self.operands]
        sums = summed is not None
        return [
            f"    const I stride = (I)gridDim.x * blockDim.x * {lanes};",
            f"    const I first = ((I)blockIdx.x * blockDim.x + threadIdx.x) * {lanes};",
            *[f"    R sums[{lanes}] = {{}};"] * sums,
            "    for (I i = first; i < n; i += stride) {",
            *(self._load(*operand) for operand in self.operands),
            *(f"        Pack<{storage}, {lanes}> {out};" for out, storage in self.outs),
            f"        for (int k = 0; k < {lanes}; ++k) {{",
            f"            R {', '.join(results)};",
            f"            formula({', '.join(inputs + results)});",
            *(f"            narrow({r}, {out}.lane[k]);" for r, (out, _) in zip(results, self.outs, strict=False)),
            *[f"            sums[k] += r{summed};"] * sums,
            "        }",
            *(
                f"        *reinterpret_cast<Pack<{storage}, {lanes}> *>({self._pointer(j)} + i) = {out};"
                for j, (out, storage) in enumerate(self.outs)
            ),
            "    }",
            *[f"    for (int k = 0; k < {lanes}; ++k) sums_p[first + k] = sums[k];"] * sums,
        ]

    def _pointer(self, j: int) -> str:
        return f"out{j}_{'to' if j in self.signature.placed else 'p'}"

    def _load(self, name: str, dtype: str, layout: str) -> str:
        storage, lanes = STORAGE[dtype], self.signature.lanes
        index = {"full": "i", "row": "i % columns", "column": "i / columns", "scalar": "0"}[layout]
        if layout in ("column", "scalar"):
            return f"        const R {name} = widen({name}_p[{index}]);"
        pack = f"Pack<{storage}, {lanes}>"
        return f"        const {pack} {name} = *reinterpret_cast<const {pack} *>({name}_p + {index});"

    def _by_rows(self) -> tuple[str, list[str]]:
        """The functions of a program that reduces rows, and the loop over rows: `group` threads compute each.

        Values are computed again after each reduction instead of stored. Each sum has the order of its own kernel
        (`nnkit.backends.cuda.reduction`).
        """
        group, real = self.signature.group, self.signature.real
        reductions, last = row_stages(self.program)
        operations = [op.removeprefix("row ") for op, _ in reductions]
        functions = [
            f"typedef {real} R;\n",
            *(f"__device__ inline R row_{op}(R a, R b) {{ return {merged}; }}\n" for op, merged in MERGED.items()),
        ]
        programs = [*(program for _, program in reductions), last]
        functions += [f"namespace stage{k} {{\n{body(p, real)}}}\n" for k, p in enumerate(programs)]
        head = f"        if (inside) for (I column = lane; column < columns; column += {group}) {{"
        index = {"full": "from + column", "row": "column", "column": "row", "scalar": "0"}
        inputs = [f"widen({name}_p[{index[layout]}])" for name, _, layout in self.operands]
        inputs += [f"total{k}" for k in range(len(reductions))]
        lines = [
            "    __shared__ R shared[256];",
            f"    const int t = threadIdx.x, lane = t % {group};",
            "    const I rows = n / columns;",
            f"    const I first = (I)blockIdx.x * {256 // group}, stride = (I)gridDim.x * {256 // group};",
            "    for (I start = first; start < rows; start += stride) {",
            f"        const I row = start + t / {group}, from = row * columns;",
            "        const bool inside = row < rows;",
            *(f"        R total{k} = {NEUTRAL[op]};" for k, op in enumerate(operations)),
        ]
        for k, op in enumerate(operations):
            lines += [
                head,
                f"            R r; stage{k}::formula({', '.join([*inputs, 'r'])});",
                f"            total{k} = row_{op}(total{k}, r);",
                "        }",
                f"        shared[t] = total{k};",
                f"        for (int half = {group // 2}; half > 0; half /= 2) {{",
                "            __syncthreads();",
                f"            if (lane < half) shared[t] = row_{op}(shared[t], shared[t + half]);",
                "        }",
                "        __syncthreads();",
                f"        total{k} = shared[t - lane];",
                "        __syncthreads();",
            ]
        results = [f"r{j}" for j in range(len(self.outs))]
        lines += [head, f"            R {', '.join(results)};"]
        lines += [f"            stage{len(reductions)}::formula({', '.join(inputs + results)});"]
        for j, r in enumerate(results):
            whole = j not in self.signature.columns
            place = f"{self._pointer(j)}[{'from + column' if whole else 'row'}]"
            lines.append(f"            {'' if whole else 'if (column == 0) '}narrow({r}, {place});")
        return "".join(functions), [*lines, "        }", "    }"]


def one_entry(program: Program, signature: KernelSignature) -> Rider:
    """A program of numbers as the work of one thread."""
    operands = [f"const {STORAGE[dtype]} *a{j}" for j, dtype in enumerate(signature.dtypes)]
    outs = [f"{STORAGE[dtype]} *o{j}" for j, dtype in enumerate(signature.out_dtypes)]
    results = [f"r{j}" for j in range(len(outs))]
    values = [*(f"widen(*a{j})" for j in range(len(operands))), *results]
    lines = [
        f"__device__ inline void ride({', '.join([*operands, *outs])}) {{",
        f"    R {', '.join(results)};",
        f"    formula({', '.join(values)});",
        *(f"    narrow({r}, *o{j});" for j, r in enumerate(results)),
        "}",
    ]
    types = [parameter[: parameter.index("*") + 1] for parameter in (*operands, *outs)]
    arguments = ", ".join(f"{{{j}}}" for j in range(len(types)))
    return Rider(tuple(types), f"SPACE::ride({arguments});", body(program, signature.real) + "\n".join(lines) + "\n")


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
