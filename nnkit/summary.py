"""A table of a network's layers, as text and for notebooks."""

import math
from dataclasses import dataclass

from nnkit.backends.dtypes import ITEMSIZE
from nnkit.layers import Dropout
from nnkit.model import Model

Row = tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Summary:
    """The layers of a network in order; its repr is a table, also in notebooks.

    Attributes:
        title: the network.
        head, rows: the columns and the lines of the table, as text.
        parameters: their number.
        frozen: the number of those whose rate is 0.
    """

    title: str
    head: Row
    rows: tuple[Row, ...]
    parameters: int
    frozen: int

    @classmethod
    def of(cls, model: Model) -> "Summary":
        """The summary of a network."""
        fitted, rates, frozen = model.preprocessing, model.parameters.rates, 0
        rows = [("", "inputs", f"{model.width}", "", "")]
        if fitted is not None:
            rows.append(("", fitted.kind, f"{model.d_in}", "", ""))
        units, place = model.d_in, -1
        for number, layer in enumerate(model.layers):
            if isinstance(layer, Dropout):
                rows.append((f"{number}", layer.label, f"{units}", "", ""))
                continue
            units, place = layer.units, place + 1
            counts = {name: math.prod(shape) for name, shape in layer.shapes.items()}
            own = {} if rates is None else rates[place]
            frozen += sum(count for name, count in counts.items() if own.get(name) == 0)
            label = layer.label.removeprefix(f"{units} ")
            rates_in_words = ", ".join(f"{name} {rate:g}" for name, rate in own.items() if rate != 1)
            rows.append((f"{number}", label, f"{units}", f"{sum(counts.values()):,}", rates_in_words))
        total = model.parameters.count
        size = f"{total * ITEMSIZE[model.dtype] / 1e6:,.1f} MB"
        rows.append(("", "total", "", f"{total:,}", f"{size}{f', {frozen:,} frozen' if frozen else ''}"))
        return cls(
            repr(model),
            ("", "layer", "units", "parameters", "" if rates is None else "rates"),
            tuple(rows),
            total,
            frozen,
        )

    def __repr__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pads = (str.rjust, str.ljust, str.rjust, str.rjust, str.ljust)
        each = ("  ".join(p(t, w) for p, t, w in zip(pads, line, widths, strict=True)).rstrip() for line in lines)
        return "\n".join([self.title, *each])

    def _repr_html_(self) -> str:
        import html  # whose table of entities is not needed otherwise

        def line(cells: Row, kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

        rows = "".join(line(row, "td") for row in self.rows)
        head = f"<thead>{line(self.head, 'th')}</thead>"
        return f"<table><caption>{html.escape(self.title)}</caption>{head}<tbody>{rows}</tbody></table>"
