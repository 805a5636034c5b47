"""A result in Markdown, generated from its JSON."""

from collections.abc import Callable
from typing import Any

from bench.gpu.absent import absent
from bench.report import of_time

Row = dict[str, Any]


def markdown(result: dict[str, Any]) -> str:
    """The whole result: the machine, the tables, and what is missing in them."""
    parts = [_head(result), _clocks(result), _ceilings(result), _kernels(result)]
    for precision in result["settings"]["precisions"]:
        parts += [_steps(result, precision), _peers(result, precision)]
    parts += [_host(result), _memory(result), _epochs(result), absent(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(result: dict[str, Any]) -> str:
    m, s = result["machine"], result["settings"]
    versions = ", ".join(f"{label} {m[key]}" for key, label in _VERSIONS.items() if m.get(key))
    where = f"driver {m['driver']}, CUDA runtime {m['cuda_runtime']}, " if m["driver"] else ""
    tolerances = ", ".join(f"{value:.0e} in {name}" for name, value in s["tolerances"].items())
    short = "\n\n**A short run, to check that everything runs: its numbers mean nothing.**" if s["short"] else ""
    return (
        f"# {m['gpu']}\n\n"
        f"{where}{versions}; nnkit {m['nnkit']} at {m['commit']}; Python {m['python']}, {m['os']}, {m['cpu']}; "
        f"{m['date']}; {result['seconds']:.0f} s in all.\n\n"
        "A step of gradient descent: sigmoid layers, cross-entropy, parameters in float32. Each contender has a "
        f"process; one computes at a time, in {s['rounds']} rounds, {s['seconds']:g} s each in total. CUDA's events "
        "(for JAX the host's clock, with one synchronization) time many steps at once. Before the timing, the "
        f"parameters of each contender after {s['compared_steps']} steps were compared with float64; tolerances, "
        f"relative to the change of each array: {tolerances}. bf16: products of bfloat16 operands, parameters in "
        "float32. In PyTorch (by autocast) and JAX, results are also bfloat16, and partial sums may be; nnkit's "
        "sums and results are float32."
        f"{short}"
    )


_VERSIONS = {"cupy": "CuPy", "torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}


def _clocks(result: dict[str, Any]) -> str:
    rows = [[part, *found.values()] for part, found in result.get("clocks", {}).items() if found]
    names = next((list(found) for found in result.get("clocks", {}).values() if found), [])
    return _table("The GPU right after each part, by nvidia-smi", ["after", *names], rows)


def _ceilings(result: dict[str, Any]) -> str:
    found = result.get("ceilings", {})
    rows = []
    if "copy" in found:
        rate = found["copy"]["bytes"] / found["copy"]["minimum"]
        rows.append([f"copy of {found['copy']['bytes'] / 2e9:.2g} GB, read and written", f"{rate / 1e9:.0f} GB/s"])
    for precision, row in found.get("products", {}).items():
        if "minimum" in row:
            rows.append([f"product of two {row['width']}², {precision}", _flops(row["flops"] / row["minimum"])])
    return _table("The limits of this GPU", ["", "rate"], rows)


def _kernels(result: dict[str, Any]) -> str:
    copy = result.get("ceilings", {}).get("copy")
    peak = copy["bytes"] / copy["minimum"] if copy else None
    rows = []
    for row in result.get("kernels", []):
        if "minimum" in row:
            rate = row["bytes"] / row["minimum"]
            share = f"{100 * rate / peak:.0f} %" if peak else "–"
            rows.append([row["kind"], row["name"], of_time(row["minimum"]), f"{rate / 1e9:.0f} GB/s", share])
    title = "Fused kernels: the bytes to read and write once, divided by the time"
    return _table(title, ["kind", "kernel", "time", "rate", "share of the copy"], rows)


def _steps(result: dict[str, Any], precision: str) -> str:
    def cell(row: Row, measured: dict[str, Row]) -> str:
        if "minimum" not in row:
            return "–"
        floor = measured.get("floor", {}).get("minimum")
        ratio = f" = {_number(row['minimum'] / floor)}" if floor and row is not measured.get("floor") else ""
        return f"{of_time(row['minimum'])} ({of_time(row['median'])}){ratio}"

    title = f"A step in {precision}: minimum (median) = multiple of the products alone, by the minima"
    return _by_size(result, precision, title, cell)


def _peers(result: dict[str, Any], precision: str) -> str:
    def cell(row: Row, measured: dict[str, Row]) -> str:
        own = measured.get("nnkit", {})
        if "minimum" not in row or "minimum" not in own or row in (own, measured.get("floor")):
            return "–"
        return f"{_number(row['minimum'] / own['minimum'])} ({_number(row['median'] / own['median'])})"

    return _by_size(result, precision, f"A step in {precision} as a multiple of nnkit's: minima (medians)", cell)


def _host(result: dict[str, Any]) -> str:
    return _by_size(
        result, "float32", "The time that launching a step occupies the host, float32",
        lambda row, _: of_time(row["host"]) if "host" in row else "–",
    )  # fmt: skip


def _memory(result: dict[str, Any]) -> str:
    def cell(row: Row, _: dict[str, Row]) -> str:
        peak = f" ({row['peak_bytes'] / 1e6:.0f})" if row.get("peak_bytes") is not None else ""
        return f"{row['device_bytes'] / 1e6:.0f}{peak}" if row.get("device_bytes") else "–"

    title = (
        "Device memory in MB, float32: held by the process after the steps, including its context and libraries (peak "
        "memory of the library's arrays; JAX includes previous sizes)"
    )
    return _by_size(result, "float32", title, cell)


def _epochs(result: dict[str, Any]) -> str:
    sizes = result.get("epochs", {})
    data = "; ".join(sorted({f"{e['samples']} samples, {e['data']}" for e in sizes.values()}))
    rows = []
    for name in result["contenders"]:
        cells = []
        for measured in sizes.values():
            row, own = measured["contenders"].get(name, {}), measured["contenders"].get("nnkit", {})
            times = f" = {_number(row['minimum'] / own['minimum'])}" if {"minimum"} <= row.keys() & own.keys() else ""
            cell = f"{of_time(row['minimum'])} ({of_time(row['median'])}){times}" if "minimum" in row else "–"
            if cell != "–" and name.startswith("nnkit"):
                way = f"{row['way']}, " if "way" in row else ""
                cell += f"; {way}{_number(1e6 * row['minimum'] / measured['steps'])} µs per step"
            cells.append(cell)
        if any(cell != "–" for cell in cells):
            rows.append([result["contenders"][name], *cells])
    title = (
        f"An epoch ({data}): nnkit by `fit`, which also measures cost and accuracy; the others by a plain loop over "
        "the same minibatches on the device; minimum (median) = multiple of nnkit's; for nnkit also the method, and "
        "the minimum divided by the number of steps"
    )
    return _table(title, ["", *map(_title, sizes)], rows)


def _by_size(result: dict[str, Any], precision: str, title: str, cell: Callable[[Row, dict[str, Row]], str]) -> str:
    """A table of contenders by sizes, without empty rows and columns."""
    sizes = {size: by[precision] for size, by in result.get("steps", {}).items() if precision in by}
    rows = []
    for name, label in result["contenders"].items():
        cells = [cell(measured.get(name, {}), measured) for measured in sizes.values()]
        if any(c != "–" for c in cells):
            rows.append([label, *cells])
    return _table(title, ["", *map(_title, sizes)], rows)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([f"**{title}**", "", *lines])


def _title(size: str) -> str:
    return size.replace("x", ", ")


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e11 else f"{rate / 1e9:.3g} GFLOP/s"
