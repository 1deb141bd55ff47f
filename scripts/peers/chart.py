"""The results as an SVG bar chart, one panel per workload, for light and dark pages."""

from html import escape

from . import table

WIDTH, MARGIN, GAP = 980, 16, 28
BAR, STEP, HEADING = 13, 18, 20
LABEL, VALUE = 180, 52  # margins left and right of the bars

STYLE = """
  svg { color: #1f2328; font: 12px system-ui, sans-serif }
  text { fill: currentColor }
  .title { font-size: 15px; font-weight: 600 }
  .family, .note { opacity: .7 }
  .own text { font-weight: 600 }
  rect { fill: #8196ab }
  .own rect { fill: #d9822b }
  @media (prefers-color-scheme: dark) {
    svg { color: #e6edf3 }
    rect { fill: #62788f }
    .own rect { fill: #f0a04b }
  }
"""


def text(x, y, content, **attributes):
    extra = "".join(f' {name.rstrip("_").replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{extra}>{escape(content)}</text>'


def panel(report, work, x, y, width):
    """Returns (elements, height) of one workload: one bar per engine, grouped by precision family."""
    out = [text(x, y + 14, f"{work['title']}, tokens/s", class_="title")]
    bottom = y + 26
    results = [row["results"].get(work["key"]) for row in report["rows"]]
    longest = max((result["tokens_per_second"] for result in results if result), default=1)
    for family, members in table.rows(report):
        measured = [row for row in members if work["key"] in row["results"]]
        if not measured:
            continue
        out.append(text(x, bottom + 13, family, class_="family"))
        bottom += HEADING
        for row in sorted(measured, key=lambda row: -row["results"][work["key"]]["tokens_per_second"]):
            rate = row["results"][work["key"]]["tokens_per_second"]
            length = max(1, (width - LABEL - VALUE) * rate / longest)
            kind = ' class="own"' if row["engine"] == table.HORNBOOK else ""
            out.append(f"<g{kind}>")
            out.append(text(x + LABEL - 6, bottom + 11, table.label(row), text_anchor="end"))
            position = f'x="{x + LABEL:.0f}" y="{bottom:.0f}"'
            out.append(f'<rect {position} width="{length:.1f}" height="{BAR}" rx="2"/>')
            out.append(text(x + LABEL + length + 5, bottom + 11, f"{rate:,.0f}"))
            out.append("</g>")
            bottom += STEP
        bottom += 4
    return out, bottom - y


def render(report):
    """Returns the SVG: two columns of panels, and the footnotes below."""
    width = (WIDTH - 2 * MARGIN - GAP) / 2
    body, y = [], MARGIN
    works = report["workloads"]
    for first in range(0, len(works), 2):
        heights = []
        for column, work in enumerate(works[first : first + 2]):
            elements, height = panel(report, work, MARGIN + column * (width + GAP), y, width)
            body += elements
            heights.append(height)
        y += max(heights) + GAP - 8
    for line in table.footnotes(report):
        body.append(text(MARGIN, y + 4, line, class_="note"))
        y += 17
    height = y + MARGIN - 8
    title = "Tokens per second of GPT-2 124M on a CPU, by engine, precision and workload"
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{title}</title>"]
    return "\n".join([*head, f"<style>{STYLE}</style>", *body, "</svg>", ""])
