"""The CUDA source of an epoch: hardware primitives, loops, the network's formulas, and the function that joins them.

Each block reads its parameters into shared memory, does all steps there (`StepText`), and writes them back. During a
step, the next minibatch and the sample indices of the one after it are read from global memory.
"""

from collections.abc import Sequence
from itertools import pairwise

from nnkit.backends.cuda.formula_text import PRELUDE, body
from nnkit.one_launch.layout import THREADS, Layout, Recipe, padded
from nnkit.one_launch.machine import CLUSTER, GATHER, LOOPS, MACHINE


class StepText:
    """The lines of a step; they use the layout's arrays by name, and `step`, `rank` and `rows_of`."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        self.recipe, self.layout = recipe, layout
        self.last = len(recipe.widths) - 2

    def lines(self) -> list[str]:
        """All lines in order; a barrier must follow."""
        later = range(1, self.last + 1)
        lines = [*self._minibatch(), *self._first()]
        lines += [line for i in later for line in self._forward(i)]
        lines += self._softmax() if self.recipe.softmax else []
        lines += [line for i in reversed(later) for line in self._backward(i)]
        return lines + [line for i in (0, *later) for line in self._update(i)]

    def _minibatch(self) -> list[str]:
        """The minibatch, its number of samples, the weight of a sample in the mean, and the optimizer's scalars."""
        size, programs = self.layout.batch_size, self.recipe.programs
        x, y = (self.layout.arrays[name] for name in "xy")
        lines = [
            "const int rows = rows_of(step);",
            f"const R rate = rates[step], scale = (R)(rows == {size} ? {1 / size!r} : 1.0 / rows);",
            f"const float *const x_now = x + (step & 1) * {self.layout.rows * x.row};",
            f"const float *const y_now = y + (step & 1) * {y.row};",
        ]
        if "clock" in programs:
            operands = [{"t": "t", **self._numbers()}[name] for name in programs["clock"].operands]
            lines.append(f"of_clock::formula({', '.join(operands)}, t, correction1, correction2);")
        return lines

    def _first(self) -> list[str]:
        """The first layer, and the request for the next minibatch, which is read while blocks wait for each other."""
        layout, units = self.layout, self.recipe.widths[1]
        sizes = f"{units}, {layout.columns // 4}, {self._row('W0')}, {self._row('x')}, {layout.tiles[0][0]}"
        product = f"multiply<{sizes}>(x_now, W0, rows, [&](int row, int unit, R sum) {{"
        ask = ["ask_for_samples(step + 1);", "ask_for_indices(step + 2);"]
        if layout.blocks == 1:
            return [*ask, product, *self._activate(0), "});", "block_sync();"]
        return [
            "cluster_wait();  // until the other blocks have read the previous sums",
            product,
            f"    partial[row * {padded(units)} + unit] = sum;",
            "});",
            "cluster_arrive();",
            *ask,
            "cluster_wait();",
            f"gather<{layout.blocks}, {units}, {padded(units)}>(partial, rows, [&](int row, int unit, R sum) {{",
            *self._activate(0),
            "});",
            "cluster_arrive();",
            "block_sync();",
        ]

    def _forward(self, i: int) -> list[str]:
        """Layer i ≥ 1."""
        inputs, units = self.recipe.widths[i : i + 2]
        sizes = f"{units}, {-(-inputs // 4)}, {self._row(f'W{i}')}, {padded(inputs)}, {self.layout.tiles[i][0]}"
        call = f"multiply<{sizes}>(h{i - 1}, W{i}, rows, [&](int row, int unit, R sum) {{"
        return [call, *self._activate(i), "});", "block_sync();"]

    def _activate(self, i: int) -> list[str]:
        """From an entry of a product to h or, in the last layer, to a logit and, without softmax, the output error."""
        width = self.recipe.widths[i + 1]
        at, lines = f"[row * {padded(width)} + unit]", [f"const R z = sum + b{i}[unit];"]
        if i == self.last:
            place = f"(step * {self.layout.batch_size} + row) * {width} + unit"
            lines.append(f"if (rank == 0 && row < rows) logits[{place}] = z;")
        if i == self.last and not self.recipe.softmax:
            lines.append(f"of_delta::formula(z, y_now[row * {width} + unit], scale, delta{i}{at});")
        if f"z{i}" in self.layout.arrays:
            lines.append(f"z{i}{at} = z;")
        if f"h{i}" in self.layout.arrays:
            lines.append(f"of_forward{i}::formula(z, h{i}{at});")
        return [f"    {line}" for line in lines]

    def _softmax(self) -> list[str]:
        """The output error for softmax, which couples outputs: each entry computes the sums over its row itself."""
        z, width = f"z{self.last}", self.recipe.widths[-1]
        row, at = f"row * {padded(width)}", f"[row * {padded(width)} + unit]"
        target, delta = f"y_now[row * {width} + unit]", f"delta{self.last}{at}"
        each = f"for (int k = 0; k < {width}; ++k)"
        shifted = [
            f"R largest = {z}[{row}];",
            f"{each} {{ const R a = {z}[{row} + k]; largest = (largest > a || largest != largest) ? largest : a; }}",
            f"of_shifted_exp::formula({z}{at}, largest, exponential{at});",
        ]
        total = ["R total = 0;", f"{each} total += exponential[{row} + k];"]
        if not self.recipe.pullback:
            end = f"of_softmax_delta::formula(exponential{at}, total, {target}, scale, {delta});"
            return self._for_outputs(shifted) + self._for_outputs([*total, end])
        outputs = [
            *total,
            f"of_divided::formula(exponential{at}, total, p{at});",
            f"of_delta::formula(p{at}, {target}, scale, error{at});",
        ]
        pulled = [
            "R projection = 0;",
            f"{each} projection += p[{row} + k] * error[{row} + k];",
            f"of_softmax_pullback::formula(p{at}, error{at}, projection, {delta});",
        ]
        return self._for_outputs(shifted) + self._for_outputs(outputs) + self._for_outputs(pulled)

    def _for_outputs(self, lines: Sequence[str]) -> list[str]:
        head = f"entries<{self.recipe.widths[-1]}>(rows, [&](int row, int unit) {{"
        return [head, *(f"    {line}" for line in lines), "});", "block_sync();"]

    def _backward(self, i: int) -> list[str]:
        """The error of layer i − 1."""
        (inputs, units), before = self.recipe.widths[i : i + 2], i - 1
        saved, at = "z" if self.recipe.saves_z[before] else "h", f"[row * {padded(inputs)} + input]"
        sizes = f"{inputs}, {units}, {self._row(f'W{i}')}, {padded(units)}, {self.layout.tiles[i][1]}"
        return [
            f"multiply_back<{sizes}>(delta{i}, W{i}, rows, [&](int row, int input, R sum) {{",
            f"    of_gradient{before}::formula({saved}{before}{at}, sum, delta{before}{at});",
            "});",
            "block_sync();",
        ]

    def _update(self, i: int) -> list[str]:
        """Layer i's gradients and update; all but the first weights start with the threads that those leave idle."""
        inputs, units = self.recipe.widths[i : i + 2]
        quads = self.layout.columns // 4 if i == 0 else -(-inputs // 4)
        thread, others = "threadIdx.x", "blockDim.x - 1 - threadIdx.x"
        x, x_row = ("x_now", self._row("x")) if i == 0 else (f"h{i - 1}", padded(inputs))
        vectors = [f"v{j}" for j in range(len(self.recipe.vectors))]
        packs = {"p": f"W{i}"} | {v: f"{v}_W{i}" for v in vectors}
        of_w, of_b = (f"(R){self.recipe.rates[i][name]!r}" for name in "Wb")
        weights = self._call("weights", "p.lane[k]", "g.lane[k]", of_w, [f"{v}.lane[k]" for v in vectors])
        biases = self._call("biases", f"b{i}[unit]", "g", of_b, [f"{v}_b{i}[unit]" for v in vectors])
        sizes = f"{units}, {quads}, {self._row(f'W{i}')}, {x_row}, {padded(units)}"
        return [
            f"weight_gradients<{sizes}>({others if i else thread}, delta{i}, {x}, rows, [&](int at, const R4 &g) {{",
            *(f"    R4 {pack} = load4({array} + at);" for pack, array in packs.items()),
            f"    for (int k = 0; k < 4; ++k) {weights}",
            *(f"    store4({array} + at, {pack});" for pack, array in packs.items()),
            "});",
            f"bias_gradients<{units}, {padded(units)}>({others}, delta{i}, rows, [&](int unit, R g) {{",
            f"    {biases}",
            "});",
        ]

    def _call(self, name: str, p: str, g: str, factor: str, vectors: Sequence[str]) -> str:
        """The update of a parameter and its entries of the optimizer's vectors."""
        named = {"p": p, "g": g, "learning_rate": "rate", "rate_factor": factor}
        named |= {"correction1": "correction1", "correction2": "correction2"}
        named |= dict(zip(self.recipe.vectors, vectors, strict=True)) | self._numbers()
        operands = [named[operand] for operand in self.recipe.programs[name].operands]
        return f"of_{name}::formula({', '.join([*operands, p, *vectors])});"

    def _numbers(self) -> dict[str, str]:
        return {name: f"n{i}" for i, name in enumerate(self.recipe.numbers)}

    def _row(self, name: str) -> int:
        return self.layout.arrays[name].row


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
        f"    epoch(memory, {'cluster_rank()' if cluster else '0'}, blockIdx.x / {layout.blocks}, {_names(recipe)});",
        "}",
    ]
    return PRELUDE + MACHINE + CLUSTER * cluster + epoch_text(recipe, layout, starts, lanes) + "\n".join(entry) + "\n"


def epoch_text(recipe: Recipe, layout: Layout, starts: Sequence[int], lanes: int) -> str:
    """The work of one thread, `epoch(memory, rank, member, ...)`: the kernel without the hardware primitives."""
    formulas = [f"namespace of_{name} {{\n{body(program, 'float')}}}\n" for name, program in recipe.programs.items()]
    cluster, clock = layout.blocks > 1, "clock" in recipe.programs
    own = ["parameters", *(f"vector{j}" for j in range(len(recipe.vectors)))]
    lines = [
        *(f"{name} += member * stride;" for name in own),
        *["count += member;"] * clock,
        *(f"{name} += member * samples * {recipe.widths[-1]};" for name in ("targets", "logits")),
        "if (order) order += member * samples;",
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
    head = (
        f"__device__ inline void epoch(float *memory, unsigned int rank, long long member, {_parameters(recipe)}) {{\n"
    )
    loops = LOOPS + GATHER * cluster
    return "".join(formulas) + loops + head + "\n".join(f"    {line}" for line in lines) + "\n}\n"


def arguments(recipe: Recipe) -> list[tuple[str, str]]:
    """The type and name of each kernel argument, in order.

    X (samples, d_in); targets (samples, d_out) in the order of the epoch; order (samples,) or 0; rates (steps,); the
    flat parameters and the optimizer's vectors; its scalars, 0-d; its step count, if it has one; logits
    (samples, d_out), the result; the number of samples; and `stride`, the entries of a network's parameters.

    Several networks, the members, are trained by one cluster each, with the same X, rates and scalars: the other arrays
    have a leading axis for members.
    """
    found = [("const float *", "X"), ("const float *", "targets")]
    found += [("const long long *", "order"), ("const float *", "rates"), ("float *", "parameters")]
    found += [("float *", f"vector{j}") for j in range(len(recipe.vectors))]
    found += [("const float *", f"number{i}") for i in range(len(recipe.numbers))]
    found += [("float *", "count")] * ("clock" in recipe.programs)
    return [*found, ("float *", "logits"), ("long long ", "samples"), ("long long ", "stride")]


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
