"""Directives for numbers that were measured before.

`{results}` shows a file of bench/results, `{evidence}` a table of which optimizer, cost or batch size to choose.
"""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

_ROOT = Path(__file__).resolve().parents[2]


class _Text(Directive):
    """A directive whose content is Markdown that it makes."""

    required_arguments = 1

    def text(self, name: str) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        holder = nodes.container(classes=["numbers"])
        lines = self.text(self.arguments[0]).splitlines()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), self.content_offset, holder)
        return holder.children  # type: ignore[no-any-return]


class Results(_Text):
    """`{results} NAME`: bench/results/NAME.md, and NAME.png if there is one."""

    def text(self, name: str) -> str:
        folder = _ROOT / "bench" / "results"
        found = (folder / f"{name}.md").read_text(encoding="utf-8")
        found = re.sub(r"^#+ (.*)$", r"**\1**", found, flags=re.MULTILINE)  # the page has its own titles
        if (folder / f"{name}.png").exists():
            picture = f"![The time of a step by contender and size](../bench/results/{name}.png)"
            found = re.sub(r"\n\n(?=\|)", f"\n\n{picture}\n\n", found, count=1)
        return found


class Evidence(_Text):
    """`{evidence} optimizers`, `costs`, `errors` or `batch_sizes`: a table of docs/evidence/evidence.json."""

    def text(self, name: str) -> str:
        found = json.loads((_ROOT / "docs" / "evidence" / "evidence.json").read_text(encoding="utf-8"))
        return str(getattr(self, f"_{name}")(found))

    def _optimizers(self, found: Any) -> str:
        head = "| data | optimizer | best rate | accuracy in % | rates within one point of it |"
        lines = [head, "|---|---|---|---|---|"]
        for row in found["optimizers"]:
            rates = {float(rate): accuracy for rate, accuracy in row["by_rate"].items()}
            best = max(rates, key=lambda rate: (rates[rate][0], -rate))
            good, ordered = [], list(rates)
            for step in (1, -1):  # those beside the best, without a gap
                place = ordered.index(best) + (step if step > 0 else 0)
                while 0 <= place < len(ordered) and rates[ordered[place]][0] >= rates[best][0] - 1:
                    good.append(ordered[place])
                    place += step
            within = f"{min(good):g} to {max(good):g}"
            lines.append(f"| {row['data']} | {row['optimizer']} | {best:g} | {_pm(rates[best], 1)} | {within} |")
        return "\n".join(lines)

    def _costs(self, found: Any) -> str:
        lines = ["| data | cost | accuracy in % |", "|---|---|---|"]
        lines += [
            f"| {row['data']} | `{row['cost']}` | {_pm(row['accuracy'], 1)} |"
            for row in found["costs"]
            if "accuracy" in row
        ]
        return "\n".join(lines)

    def _errors(self, found: Any) -> str:
        lines = ["| data | cost | mean absolute error | root mean square |", "|---|---|---|---|"]
        lines += [
            f"| {row['data']} | `{row['cost']}` | {_pm(row['mae'], 3)} | {_pm(row['rmse'], 3)} |"
            for row in found["costs"]
            if "mae" in row
        ]
        return "\n".join(lines)

    def _batch_sizes(self, found: Any) -> str:
        lines = ["| batch size | best rate of Adam | accuracy in % | time of an epoch |", "|---|---|---|---|"]
        for row in found["batch_sizes"]:
            time = f"{1e3 * row['seconds']:.1f} ms"
            lines.append(f"| {row['batch_size']} | {row['rate']:g} | {_pm(row['accuracy'], 1)} | {time} |")
        return "\n".join(lines)


def _pm(pair: list[float], digits: int) -> str:
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def setup(app: Any) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("results", Results)
    app.add_directive("evidence", Evidence)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
