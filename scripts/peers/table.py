"""From samples to medians, ratios and the table."""

from statistics import median

# Precisions that move the same number of bytes compete with each other.
FAMILIES = {"f32": ("f32",), "16 bit": ("f16", "bf16", "bf16-dot"), "int8": ("int8",), "int4": ("int4",)}

HORNBOOK = "hornbook"


def summary(samples):
    """Median and spread of one cell; the spread is that of the middle half, over the median."""
    ordered = sorted(samples)
    middle = median(ordered)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return {"tokens_per_second": middle, "spread": (high - low) / middle, "samples": samples}


def rows(report):
    """(family, row or None) in the table's order; a row is one engine in one precision."""
    for family, precisions in FAMILIES.items():
        members = [row for row in report["rows"] if row["precision"] in precisions and row["results"]]
        yield family, sorted(members, key=lambda row: row["engine"] != HORNBOOK)


def best_peers(members, key):
    """The fastest peer's figure of a workload, and its row; (None, None) without one."""
    peers = [row for row in members if row["engine"] != HORNBOOK and key in row["results"]]
    if not peers:
        return None, None
    best = max(peers, key=lambda row: row["results"][key]["tokens_per_second"])
    return best["results"][key]["tokens_per_second"], best


def ratios(report):
    """Hornbook's rows over the best peer of their family: [{precision, workload, ratio, peer}]."""
    found = []
    for _, members in rows(report):
        for row in members:
            if row["engine"] != HORNBOOK:
                continue
            for key, result in row["results"].items():
                figure, peer = best_peers(members, key)
                if peer:
                    of = {"precision": row["precision"], "workload": key, "peer": label(peer)}
                    found.append(of | {"ratio": result["tokens_per_second"] / figure})
    return found


def label(row):
    return f"{row['engine']} {row['native']}"


def render(report):
    """The table in Markdown, aligned for the terminal too; the best peer of each column is bold."""
    works = report["workloads"]
    grid = [["tokens/s", *(work["title"] for work in works)]]
    against = {(r["precision"], r["workload"]): r for r in ratios(report)}
    for family, members in rows(report):
        for row in members:
            cells = [label(row)]
            for work in works:
                result = row["results"].get(work["key"])
                _, best = best_peers(members, work["key"])
                text = f"{result['tokens_per_second']:,.0f}" if result else "–"
                cells.append(f"**{text}**" if result and best is row else text)
            grid.append(cells)
        for row in members:
            if row["engine"] != HORNBOOK or not any((row["precision"], w["key"]) in against for w in works):
                continue
            cells = [f"*{label(row)} / best {family} peer*"]
            for work in works:
                ratio = against.get((row["precision"], work["key"]))
                cells.append(f"*{ratio['ratio']:.2f} ×*" if ratio else "–")
            grid.append(cells)
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for line in [grid[0], rule, *grid[1:]]:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        lines.append("| " + " | ".join([line[0].ljust(widths[0]), *rest]) + " |")
    return "\n".join(lines)


def footnotes(report):
    """The machine, the versions and how steady the run was."""
    machine, bandwidth = report["machine"], report["read_bandwidth"]
    sets = ", ".join(machine["instruction_sets"]) or "instruction sets unknown"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    spreads = [result["spread"] for row in report["rows"] for result in row["results"].values()]
    rounds = f"{report['rounds']} interleaved rounds" if report["rounds"] > 1 else "one round"
    if report["interrupted"]:
        rounds += ", the last one interrupted"
    if report["quick"]:
        rounds += ", quick"
    threads = f"{report['threads']} threads of {machine['cores']} cores"
    lines = [f"{machine['cpu']} ({sets}), {threads}, {machine['system']}"]
    if bandwidth:
        low, high = min(bandwidth) / 1e9, max(bandwidth) / 1e9
        middle = median(bandwidth) / 1e9
        lines.append(f"read bandwidth {middle:.1f} GB/s ({low:.1f} to {high:.1f} over the rounds)")
    lines.append(f"GPT-2 124M shape, random weights; medians of {rounds}, {report['date']}")
    if spreads:
        typical, most = median(spreads), max(spreads)
        lines.append(f"spread of the samples' middle half: typically {typical:.0%}, {most:.0%} at most")
    lines.append(versions)
    return lines
