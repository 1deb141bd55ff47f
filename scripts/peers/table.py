"""Medians, ratios and the result table."""

from statistics import median

# Precisions of the same weight size are compared with each other.
FAMILIES = {"f32": ("f32",), "16 bit": ("f16", "bf16", "bf16-dot"), "int8": ("int8",), "int4": ("int4",)}

HORNBOOK = "hornbook"


def summary(samples):
    """Returns the median and the spread (interquartile range / median) of one cell."""
    ordered = sorted(samples)
    mid = median(ordered)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return {"tokens_per_second": mid, "spread": (high - low) / mid, "samples": samples}


def rows(report):
    """Yields (family, rows) in the table's order; a row is one engine in one precision."""
    for family, precisions in FAMILIES.items():
        members = [row for row in report["rows"] if row["precision"] in precisions and row["results"]]
        yield family, sorted(members, key=lambda row: row["engine"] != HORNBOOK)


def best_peer(members, key):
    """Returns the rate and the row of the fastest peer of a workload; (None, None) without one."""
    peers = [row for row in members if row["engine"] != HORNBOOK and key in row["results"]]
    if not peers:
        return None, None
    best = max(peers, key=lambda row: row["results"][key]["tokens_per_second"])
    return best["results"][key]["tokens_per_second"], best


def ratios(report):
    """Returns the ratios of Hornbook to the best peer of its family: [{precision, workload, ratio, peer}]."""
    ratios = []
    for _, members in rows(report):
        for row in members:
            if row["engine"] != HORNBOOK:
                continue
            for key, result in row["results"].items():
                peer_rate, peer = best_peer(members, key)
                if peer:
                    entry = {"precision": row["precision"], "workload": key, "peer": label(peer)}
                    ratios.append(entry | {"ratio": result["tokens_per_second"] / peer_rate})
    return ratios


def label(row):
    return f"{row['engine']} {row['native']}"


def render(report):
    """Returns the table in Markdown, aligned for the terminal; the best peer of each column is bold."""
    works = report["workloads"]
    grid = [["tokens/s", *(work["title"] for work in works)]]
    peer_ratios = {(r["precision"], r["workload"]): r for r in ratios(report)}
    for family, members in rows(report):
        for row in members:
            cells = [label(row)]
            for work in works:
                result = row["results"].get(work["key"])
                _, best = best_peer(members, work["key"])
                text = f"{result['tokens_per_second']:,.0f}" if result else "–"
                cells.append(f"**{text}**" if result and best is row else text)
            grid.append(cells)
        for row in members:
            if row["engine"] != HORNBOOK or not any(
                (row["precision"], w["key"]) in peer_ratios for w in works
            ):
                continue
            cells = [f"*{label(row)} / best {family} peer*"]
            for work in works:
                ratio = peer_ratios.get((row["precision"], work["key"]))
                cells.append(f"*{ratio['ratio']:.2f} ×*" if ratio else "–")
            grid.append(cells)
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    separator = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for line in [grid[0], separator, *grid[1:]]:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        lines.append("| " + " | ".join([line[0].ljust(widths[0]), *rest]) + " |")
    return "\n".join(lines)


def footnotes(report):
    """Returns the footnotes: machine, versions and variance."""
    machine, bandwidth = report["machine"], report["read_bandwidth"]
    sets = ", ".join(machine["instruction_sets"]) or "instruction sets unknown"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    spreads = [result["spread"] for row in report["rows"] for result in row["results"].values()]
    rounds = f"{report['rounds']} interleaved rounds" if report["rounds"] > 1 else "one round"
    if report["interrupted"]:
        rounds += ", the last one interrupted"
    if report["quick"]:
        rounds += ", quick"
    threads = f"{report['threads']} threads on {machine['cores']} cores"
    lines = [f"{machine['cpu']} ({sets}), {threads}, {machine['system']}"]
    if bandwidth:
        low, high = min(bandwidth) / 1e9, max(bandwidth) / 1e9
        mid = median(bandwidth) / 1e9
        lines.append(f"read bandwidth {mid:.1f} GB/s ({low:.1f} to {high:.1f} over the rounds)")
    lines.append(f"GPT-2 124M shape, random weights; medians of {rounds}, {report['date']}")
    if spreads:
        typical, worst = median(spreads), max(spreads)
        lines.append(f"spread (interquartile range / median): typically {typical:.0%}, at most {worst:.0%}")
    lines.append(versions)
    return lines
