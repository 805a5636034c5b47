"""What is missing in the tables of a result, and why."""

from typing import Any


def line_of(error: Exception) -> str:
    """An error's type, and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def failures(result: dict[str, Any]) -> list[str]:
    """A line for each contender, kernel or section that ended with an error or computes a different result."""
    lines = [line for line, kind in _reasons(result) if kind == "failed"]
    failed = [row for row in result["kernels"] if "failed" in row]
    lines += [f"{section} failed: {line}" for section, line in result.get("failed", {}).items()]
    return lines + [f"{row['kind']} {row['name']} failed: {row['failed']}" for row in failed]


def absent(result: dict[str, Any]) -> str:
    """A line for everything that was left out or failed, with the places."""
    lines = [line for line, kind in _reasons(result) if kind == "left_out"] + failures(result)
    if result["skipped"]:
        budget = result["settings"]["budget"]
        lines.append(f"left out, as the budget is {budget:.0f} s: {'; '.join(result['skipped'])}")
    if "stopped" in result:
        lines.append(f"the measurement was stopped {result['stopped']}")
    return "\n".join(["Not in the tables:", "", *(f"- {line}" for line in lines)]) if lines else ""


def _reasons(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The reasons for missing contenders with their places, and whether they were left out or failed."""
    places = [
        (f"the product in {precision}", {"floor": row})
        for precision, row in result.get("ceilings", {}).get("products", {}).items()
    ]
    places += [(f"{size} in {p}", rows) for size, by in result.get("steps", {}).items() for p, rows in by.items()]
    places += [(f"an epoch of {size}", found["contenders"]) for size, found in result.get("epochs", {}).items()]
    found: dict[tuple[str, str], list[str]] = {}
    for place, rows in places:
        for name, row in rows.items():
            for kind in ("left_out", "failed"):
                if kind in row:
                    last = (row[kind].strip().splitlines() or [""])[-1]
                    found.setdefault(
                        (f"{result['contenders'][name]} {kind.replace('_', ' ')}: {last}", kind), []
                    ).append(place)
    return [(f"{why} ({', '.join(where)})", kind) for (why, kind), where in found.items()]
