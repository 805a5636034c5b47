"""The CUDA source of an epoch: hardware primitives, loops, the network's formulas, and the function that joins them.

Each block reads its parameters into shared memory, does all steps there (`nnkit.one_launch.step_text`), and writes them
back. During a step, the next minibatch and the sample indices of the one after it are read from global memory.
"""

from collections.abc import Sequence
from itertools import pairwise

from nnkit.backends.cuda.formula_text import PRELUDE, body
from nnkit.one_launch.layout import THREADS, Layout
from nnkit.one_launch.machine import CLUSTER, GATHER, LOOPS, MACHINE
from nnkit.one_launch.recipe import Recipe
from nnkit.one_launch.step_text import StepText

NAME = "nnkit_epoch"


def kernel_text(recipe: Recipe, layout: Layout, starts: Sequence[int], lanes: int) -> str:
    """The complete source of the kernel `NAME`.

    Args:
        starts: the offsets of each layer's weights, then of each layer's biases, in the flat vector of parameters.
        lanes: 4 if each row of X starts at a multiple of 16 bytes, else 1.
    """
    cluster = layout.blocks > 1
    attribute = f"__cluster_dims__({layout.blocks}, 1, 1) " if cluster else ""
    entry = [
        f'extern "C" __global__ void {attribute}__launch_bounds__({THREADS}, 1)',
        f"{NAME}({_parameters(recipe)}) {{",
        "    extern __shared__ __align__(16) float memory[];",
        f"    epoch(memory, {'cluster_rank()' if cluster else '0'}, {_names(recipe)});",
        "}",
    ]
    return PRELUDE + MACHINE + CLUSTER * cluster + epoch_text(recipe, layout, starts, lanes) + "\n".join(entry) + "\n"


def epoch_text(recipe: Recipe, layout: Layout, starts: Sequence[int], lanes: int) -> str:
    """The work of one thread as the function `epoch(memory, rank, ...)`: the kernel without the hardware primitives."""
    formulas = [f"namespace of_{name} {{\n{body(program, 'float')}}}\n" for name, program in recipe.programs.items()]
    cluster, clock = layout.blocks > 1, "clock" in recipe.programs
    lines = [
        *_names_of_arrays(layout, recipe.widths[0]),
        f"for (int i = threadIdx.x; i < {layout.bytes // 4}; i += blockDim.x) memory[i] = 0;",
        "block_sync();",
        *_transfers("read", recipe, layout, starts),
        *(f"const R n{i} = *number{i};" for i in range(len(recipe.numbers))),
        *["R t = *count, correction1, correction2;"] * clock,
        *_requests(recipe, layout, lanes),
        "ask_for_indices(0);",
        "ask_for_indices(1);",
        "copies_done();",
        "block_sync();",
        "ask_for_samples(0);",
        "copies_done();",
        "cluster_arrive();" if cluster else "block_sync();",
        "for (long long step = 0; step < steps; ++step) {",
        *(f"    {line}" for line in StepText(recipe, layout).lines()),
        "    copies_done();",
        "    block_sync();",
        "}",
        *["cluster_wait();  // no block may end while another reads from it"] * cluster,
        *_transfers("write", recipe, layout, starts),
        *["if (rank == 0 && threadIdx.x == 0) *count = t;"] * clock,
    ]
    head = f"__device__ inline void epoch(float *memory, unsigned int rank, {_parameters(recipe)}) {{\n"
    loops = LOOPS + GATHER * cluster
    return "".join(formulas) + loops + head + "\n".join(f"    {line}" for line in lines) + "\n}\n"


def arguments(recipe: Recipe) -> list[tuple[str, str]]:
    """The type and name of each kernel argument, in order.

    X (samples, d_in); targets (samples, d_out) in the order of the epoch; order (samples,) or 0; rates (steps,); the
    flat parameters and the optimizer's vectors; its scalars, 0-d; its step count, if it has one; logits
    (samples, d_out), the result.
    """
    found = [("const float *", "X"), ("const float *", "targets")]
    found += [("const long long *", "order"), ("const float *", "rates"), ("float *", "parameters")]
    found += [("float *", f"vector{j}") for j in range(len(recipe.vectors))]
    found += [("const float *", f"number{i}") for i in range(len(recipe.numbers))]
    found += [("float *", "count")] * ("clock" in recipe.programs)
    return [*found, ("float *", "logits"), ("long long ", "samples")]


def _parameters(recipe: Recipe) -> str:
    return ", ".join(kind + name for kind, name in arguments(recipe))


def _names(recipe: Recipe) -> str:
    return ", ".join(name for _, name in arguments(recipe))


def _names_of_arrays(layout: Layout, inputs: int) -> list[str]:
    """The block's shared arrays, and its inputs: `columns` of them, starting at `first`."""
    own = layout.columns
    return [
        *(f"float *const {name} = memory + {array.offset // 4};" for name, array in layout.arrays.items()),
        f"const int first = (int)rank * {own}, left = {inputs} - first;",
        f"const int columns = left < 0 ? 0 : left < {own} ? left : {own};",
        f"const long long steps = (samples + {layout.batch_size - 1}) / {layout.batch_size};",
    ]


def _requests(recipe: Recipe, layout: Layout, lanes: int) -> list[str]:
    """Functions that request the minibatch of a step, or nothing after the epoch's end; there is room for two."""
    index, x, y = (layout.arrays[name] for name in ("index", "x", "y"))
    d_in, d_out, copies = recipe.widths[0], recipe.widths[-1], layout.columns // lanes
    indices = f"reinterpret_cast<long long *>(index) + (step & 1) * {index.row // 2}"
    return [
        "auto rows_of = [&](long long step) {",
        f"    const long long left = samples - step * {layout.batch_size};",
        f"    return left < 0 ? 0 : left < {layout.batch_size} ? (int)left : {layout.batch_size};",
        "};",
        "auto ask_for_indices = [&](long long step) {  // of a minibatch's samples",
        "    if (!order) return;",
        f"    long long *const to = {indices};",
        f"    const long long *const from = order + step * {layout.batch_size};",
        "    for (int i = threadIdx.x, n = rows_of(step); i < n; i += blockDim.x) copy_early<8>(to + i, from + i);",
        "};",
        "auto ask_for_samples = [&](long long step) {  // after their indices have arrived",
        f"    const long long start = step * {layout.batch_size}, *const indices = {indices};",
        f"    float *const x_to = x + (step & 1) * {layout.rows * x.row}, *const y_to = y + (step & 1) * {y.row};",
        "    const int n = rows_of(step);",
        f"    for (int i = threadIdx.x; i < n * {copies}; i += blockDim.x) {{",
        f"        const int row = i / {copies}, column = i % {copies} * {lanes};",
        f"        const float *const sample = X + (order ? indices[row] : start + row) * {d_in} + first;",
        f"        if (column < columns) copy_early<{4 * lanes}>(x_to + row * {x.row} + column, sample + column);",
        "    }",
        f"    const float *const y_from = targets + start * {d_out};",
        f"    for (int i = threadIdx.x; i < n * {d_out}; i += blockDim.x) copy_early<4>(y_to + i, y_from + i);",
        "};",
    ]


def _transfers(what: str, recipe: Recipe, layout: Layout, starts: Sequence[int]) -> list[str]:
    """Copy parameters and the optimizer's vectors from global to shared memory (`read`) or back (`write`).

    The first block writes the arrays that all blocks hold.
    """
    lines, count = [], len(recipe.widths) - 1
    flats = {"": "parameters"} | {f"v{j}_": f"vector{j}" for j in range(len(recipe.vectors))}
    once = "if (rank == 0) " if what == "write" else ""
    for prefix, flat in flats.items():
        for i, (inputs, units) in enumerate(pairwise(recipe.widths)):
            row, (W, b) = layout.arrays[f"W{i}"].row, (f"{flat} + {starts[i]}", f"{flat} + {starts[count + i]}")
            place = f"{W}, {inputs}, {units}, {inputs}" if i else f"{W} + first, {inputs}, {units}, columns"
            lines.append(f"{once if i else ''}{what}_rows({prefix}W{i}, {row}, {place});")
            lines.append(f"{once}{what}_rows({prefix}b{i}, {units}, {b}, {units}, 1, {units});")
    return lines
