"""The measured ratios as a Markdown table, and lines for missing contenders."""

from typing import Any


def table(result: dict[str, Any], sizes: list[str]) -> str:
    """A table of contenders by sizes: the time of a step divided by the floor's, for the minima and the medians."""
    contenders = result["contenders"]
    lines = [
        "| step / floor, minima (medians) | " + " | ".join(size.replace("x", ", ") for size in sizes)
        + " | peak memory, MB | installed, MB |",
        "|---" * (len(sizes) + 3) + "|",
    ]  # fmt: skip
    for name, about in contenders.items():
        rows = [result["sizes"][size]["contenders"].get(name, {}) for size in sizes]
        if not any("minimum" in row for row in rows):
            continue
        cells = [_cell(name, row, result["sizes"][size]["contenders"]) for row, size in zip(rows, sizes, strict=True)]
        memory = max(row.get("peak_bytes", 0) for row in rows)
        title = f"{about['label']} {about['version']}" if about["distributions"][0] == name else about["label"]
        lines.append(f"| {title} | {' | '.join(cells)} | {memory / 1e6:.0f} | {_megabytes(about['install_bytes'])} |")
    return "\n".join(lines)


def ratio(row: dict[str, Any], floor: dict[str, Any], which: str) -> float | None:
    """A contender's time divided by the floor's; None if either was not measured."""
    return row[which] / floor[which] if which in row and which in floor else None


def absent(result: dict[str, Any]) -> list[str]:
    """A line for each contender that was left out or failed, with the sizes if it is not all of them."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for size, measured in result["sizes"].items():
        for name, row in measured["contenders"].items():
            for kind in ("left_out", "failed"):
                if kind in row:
                    key = (
                        result["contenders"][name]["label"],
                        f"{kind.replace('_', ' ')}: {row[kind].strip().splitlines()[-1]}",
                    )
                    reasons.setdefault(key, []).append(size)
    everywhere = len(result["sizes"])
    return [
        f"{label} {why}" + ("" if len(where) == everywhere else f" (at {', '.join(where)})")
        for (label, why), where in reasons.items()
    ]


def describe(result: dict[str, Any]) -> str:
    """A few lines on what was measured, and on which machine."""
    machine, settings = result["machine"], result["settings"]
    return (
        f"One step of {settings['optimizer']} in {settings['dtype']}, hidden layers {settings['activation']}, "
        f"sigmoid outputs with cross-entropy, {settings['threads']} thread(s) on core(s) {settings['cores']}.\n"
        f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}, Python {machine['python']}, "
        f"NumPy {machine['numpy']} with {', '.join(machine['blas'])}; nnkit {machine['commit']}, {machine['date']}.\n"
        f"{settings['rounds']} interleaved rounds, {settings['seconds']:g} s for each contender and size. After "
        f"{settings['compared_steps']} steps all parameters were within {settings['tolerance']:.0e} of their change "
        "from float64 by plain NumPy.\n"
        "nnkit is the step of `fit`, with SciPy. Peak memory is that of the process at the largest size, including "
        "Python; installed is the package with its dependencies, without bytecode."
    )


def _cell(name: str, row: dict[str, Any], measured: dict[str, Any]) -> str:
    floor = measured.get("floor", {})
    if name == "floor" and "minimum" in row:
        return f"{of_time(row['minimum'])} ({of_time(row['median'])})"
    least, middle = ratio(row, floor, "minimum"), ratio(row, floor, "median")
    if least is None or middle is None:
        return "–"
    return f"{_number(least)} ({_number(middle)})"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def of_time(seconds: float) -> str:
    """Format seconds with three digits and a suitable unit."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e6:.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}"
