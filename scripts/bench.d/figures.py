"""What is made of rounds: medians and ranges, and the lines of tables."""

import statistics


def middle(rounds, name):
    """The median of one figure; none if it was not measured."""
    values = [figures[name] for figures in rounds or () if figures[name] is not None]
    return statistics.median(values) if values else None


def spread(rounds, name, form):
    values = [figures[name] for figures in rounds if figures[name] is not None]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def ratio(value, base, form=".2f"):
    return f"{value / base:{form}}" if value is not None and base else "–"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
