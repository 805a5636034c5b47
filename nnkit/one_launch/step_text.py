"""The CUDA source of one step: a network's formulas in the loops of `nnkit.one_launch.machine`.

Each block computes, with a barrier after each line:
    its part of the first product, or all of it if there is one block, while the next minibatch is requested;
    with several blocks, the sum of their parts: h̄ of the first layer, and h;
    h of each further layer (eq. 2), and after the last one the output error (eq. 19 or 8);
    the error of each preceding layer (eq. 6, 8);
    each gradient (eq. 5, 10, 12) together with its update (eq. 17).
Only the sum involves other blocks: it takes two cluster barriers, and one of them usually does not wait.
"""

from collections.abc import Sequence

from nnkit.one_launch.layout import Layout, padded
from nnkit.one_launch.recipe import Recipe


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
        weights = self._call("weights", "p.lane[k]", "g.lane[k]", [f"{v}.lane[k]" for v in vectors])
        biases = self._call("biases", f"b{i}[unit]", "g", [f"{v}_b{i}[unit]" for v in vectors])
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

    def _call(self, name: str, p: str, g: str, vectors: Sequence[str]) -> str:
        """The update of a parameter and its entries of the optimizer's vectors."""
        named = {"p": p, "g": g, "learning_rate": "rate", "correction1": "correction1", "correction2": "correction2"}
        named |= dict(zip(self.recipe.vectors, vectors, strict=True)) | self._numbers()
        operands = [named[operand] for operand in self.recipe.programs[name].operands]
        return f"of_{name}::formula({', '.join([*operands, p, *vectors])});"

    def _numbers(self) -> dict[str, str]:
        return {name: f"n{i}" for i, name in enumerate(self.recipe.numbers)}

    def _row(self, name: str) -> int:
        return self.layout.arrays[name].row
