"""A bar chart of a sweep as SVG, written by hand so that no plotting package is needed.

Its colours are legible on light and on dark pages. It knows the sweep's rates, not how they were measured.
"""
import statistics
from html import escape

SERIES = {
    "transformers pipeline": "#8c959f",
    "stock fp32": "#8ec1e8",
    "stock int8": "#2f7fc1",
    "compiled fp32": "#f4b26a",
    "compiled int8": "#d9480f",
}
WIDTH, HEIGHT = 900, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 92, 62
STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #57606a; }
.title { font-size: 16px; font-weight: 600; fill: #24292f; }
.value { font-size: 11px; } .strong { font-size: 12px; font-weight: 600; fill: #24292f; }
.grid { stroke: #8c959f; stroke-opacity: .3; } .axis { stroke: #8c959f; } .whisker { stroke: #57606a; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; } .title, .strong { fill: #e6edf3; } .whisker { stroke: #d1d7e0; }
}
"""


def text(x, y, content, kind="", anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}" {more}>{escape(content)}</text>'


def step_for(highest):
    """Distance of the grid lines: 1, 2 or 5 times a power of ten, for 4 to 8 lines."""
    step = 1.0
    while highest / step > 8:
        step *= 2.5 if str(step)[0] == "2" else 2
    return step


def bars(sweep, y_of):
    """The bars, group by group: the highest and lowest round as a whisker, the ratio to stock fp32 above the last one."""
    group = (WIDTH - LEFT - RIGHT) / len(sweep.points)
    shown = [name for name in SERIES if any(rates(sweep, point, name) for point in sweep.points)]
    width = group * 0.84 / len(shown)
    for number, point in enumerate(sweep.points):
        start = LEFT + group * (number + 0.08)
        for place, name in enumerate(shown):
            found = rates(sweep, point, name)
            if not found:
                continue
            x, middle = start + place * width, statistics.median(found)
            y = y_of(middle)
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{y_of(0) - y:.1f}" rx="1.5" fill="{SERIES[name]}"/>'
            centre = x + width / 2 - 1
            yield f'<path class="whisker" d="M{centre:.1f} {y_of(max(found)):.1f}V{y_of(min(found)):.1f}"/>'
            above = y_of(max(found)) - 5
            yield text(centre, above, f"{middle:.0f}" if middle >= 9.95 else f"{middle:.1f}", "value")
            if name == "compiled int8" and (ratio := sweep.ratio(sweep.saturated, [point], name, "stock fp32")):
                yield text(centre, above - 14, f"{ratio:.1f}x", "strong")
        logs, tokens = point.split("x")
        centre = LEFT + group * (number + 0.5)
        yield text(centre, HEIGHT - BOTTOM + 20, f"{logs} log{'' if logs == '1' else 's'} x {tokens}")


def rates(sweep, point, name):
    setup = sweep.saturated if name != "transformers pipeline" else f"1x{sweep.cores}"
    return sweep.rounds.get((setup, point, name))


def write(path, sweep, processor):
    """Draws the setup that saturates the machine: one session a core; the pipeline has all cores as torch's threads."""
    every = [rate for point in sweep.points for name in SERIES for rate in rates(sweep, point, name) or ()]
    highest = max(every) * 1.12
    step = step_for(highest)

    def y_of(rate):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - rate / highest)

    parts = [
        text(LEFT, 26, f"DeBERTa-v3-base, logs/s on {processor}", "title", "start"),
        text(LEFT, 46, "2 hypotheses a log; one session a core; medians, with the lowest and highest round; "
             "bold: times stock fp32", "", "start"),
    ]  # fmt: skip
    x = LEFT
    for name, colour in SERIES.items():
        parts.append(f'<rect x="{x}" y="60" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(text(x + 18, 71, name, "", "start"))
        x += 46 + 7.2 * len(name)
    rate = 0.0
    while rate <= highest:
        parts.append(f'<path class="{"grid" if rate else "axis"}" d="M{LEFT} {y_of(rate):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text(LEFT - 8, y_of(rate) + 4, f"{rate:.0f}", "", "end"))
        rate += step
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(text(18, middle, "logs/s", "", "middle", f'transform="rotate(-90 18 {middle})"'))
    parts += bars(sweep, y_of)
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "logs in a run x tokens in a row"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    title = "<title>Throughput of stock and compiled DeBERTa-v3-base</title>"
    path.write_text("\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n")
