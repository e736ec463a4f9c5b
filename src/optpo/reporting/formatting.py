"""Numbers as people read them, the same in the terminal and in the report."""

NOTHING = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """Write a share in [0, 1] as a percentage with one decimal."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def points(before: float | None, after: float | None) -> str:
    """Write the change between two shares in percentage points, with its sign."""
    if before is None or after is None:
        return NOTHING
    return f"{100 * (after - before):+.1f} points".replace("-", "\N{MINUS SIGN}")


def amount(value: float | None) -> str:
    """Write a count of tokens or rollouts in at most four figures: 812, 41.2 k, 3.07 M, 1.20 G."""
    if value is None:
        return NOTHING
    if abs(value) < 9_999.5:
        return f"{value:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        scaled = value / size
        if abs(scaled) < 999.5 or unit == "G":
            decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{decimals}f} {unit}"
    raise AssertionError("unreachable: every value is below the last unit or written in it")


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a number with `digits` decimals, or in powers of ten where that would show only zeros."""
    if value is None:
        return NOTHING
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Write seconds as 4.2 s, 48 s, 12 min 05 s or 2 h 03 min."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def saving(tokens: float | None, fixed_budget: float | None) -> str:
    """Say how `tokens` compare with what a fixed number of votes would have cost."""
    if not tokens or not fixed_budget:
        return NOTHING
    if fixed_budget >= tokens:
        return f"{fixed_budget / tokens:.1f}× fewer"
    return f"{tokens / fixed_budget:.1f}× more"


def one_line(text: object, longest: int = 120) -> str:
    """Return text on one line, free of control characters, cut to `longest` characters."""
    line = " ".join(str(text).split())
    line = "".join(character for character in line if character.isprintable())
    return (
        line if len(line) <= longest else line[: longest - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    )
