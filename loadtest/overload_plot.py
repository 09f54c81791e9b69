"""The table and the plot of loadtest/overload.py, from its report. Standard library only."""

WIDTH, HEIGHT, LEFT, TOP, PLOT_W, PLOT_H = 860, 330, 60, 50, 330, 210
STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}.grid{stroke:#ddd}.axis{stroke:#888}"
    ".good{stroke:#1f77b4}.bulk{stroke:#ff7f0e}.ideal{stroke:#aaa;stroke-dasharray:4 4}.limit{stroke:#d62728;stroke-dasharray:4 4}"
    "polyline,.key{fill:none;stroke-width:2.5}circle{fill:#1f77b4}"
)


def ms(value):
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def bars(report):
    """The bars with what was measured: text, figure, whether it holds."""
    capacity, top = report["capacity"]["per_second"], report["alone"][-1]
    goodput = top["goodput_per_second"] / capacity
    yield f"goodput at {top['factor']:g}x, of capacity", f"{goodput:.2f} (bar .95)", goodput >= 0.95
    text = f"{ms(top['p99_ms'])} ms (bar {report['timeout_ms']})"
    yield f"p99 of accepted at {top['factor']:g}x", text, top["p99_ms"] <= report["timeout_ms"]
    refused = top["refused_p99_ms"]
    yield f"p99 of refusals at {top['factor']:g}x", f"{ms(refused)} ms (bar 20)", refused is not None and refused < 20
    if pauses := top["pauses_ms"]:
        rest = top["refused_p99_ms_without_pauses"]
        text = f"{ms(rest)} ms; the machine stood still {len(pauses)} times, for {min(pauses)} to {max(pauses)} ms"
        yield f"the same without the {top['refused_in_pauses']} that met a pause of the machine", text, rest < 20
    recovery = report["recovery"]["recovery_s"]
    yield "recovery after a surge to 3x", f"{recovery:.2f} s (bar 2)", recovery < 2
    first, later = top["mean_rss_mb_by_half"]
    yield f"mean resident memory in the halves of {top['factor']:g}x", f"{first:.0f} and {later:.0f} MB", later <= 1.05 * first
    if bulk := report.get("bulk"):
        quiet, beside = bulk["quiet"]["p99_ms"], bulk["beside"]
        limit = 3 * quiet + beside["run_ms"]
        text = f"{ms(beside['p99_ms'])} ms (bar 3 x {ms(quiet)} + {ms(beside['run_ms'])} = {ms(limit)})"
        yield "p99 of singles beside bulk at full load", text, beside["p99_ms"] <= limit


def table(steps, capacity):
    with_bulk = "bulk_logs_per_second" in steps[0]
    head = ["of capacity", "offered/s", "goodput/s", "goodput of capacity", "p50 ms", "p99 ms", "p99.9 ms", "429/s", "429 p99 ms", "other"]
    head += ["bulk logs/s"] if with_bulk else []
    yield head
    yield ["---"] * len(head)
    for step in steps:
        other = {status: n for status, n in step["statuses"].items() if status not in ("200", "429")}
        row = [f"{step['factor']:g}x", f"{step['offered_per_second']:.0f}", f"{step['goodput_per_second']:.0f}"]
        row += [f"{step['goodput_per_second'] / capacity:.2f}", ms(step["p50_ms"]), ms(step["p99_ms"]), ms(step["p999_ms"])]
        row += [f"{step['refused_per_second']:.0f}", ms(step["refused_p99_ms"]), str(other or "-")]
        yield row + ([f"{step['bulk_logs_per_second']:.0f}"] if with_bulk else [])


def summary(report):
    capacity = report["capacity"]["per_second"]
    runs = ", ".join(f"{n} clients {rate:.0f}" for n, rate in report["capacity"]["runs_per_second"].items())
    rss = [mb for _, mb in report["rss_mb"]]
    lines = [
        f"Machine: {report['machine']}; the server, oha and the batch callers share it. Model {report['model']}, lines "
        f"{report['lines']} (mixed lengths), {report['seconds_a_step']} s a step (three times that at the largest factor), "
        f"clients wait {report['timeout_ms']} ms. "
        f"Load average before: {report['load_average_before']:.1f}.",
        "",
        f"Capacity: {capacity:.0f} answers/s, the most of closed loops ({runs}). Resident memory: {rss[0]:.0f} MB at first, "
        f"{max(rss):.0f} MB at most, {rss[-1]:.0f} MB at the end; up to 2,300 connections were open.",
        "",
        *(f"| {' | '.join(row)} |" for row in table(report["alone"], capacity)),
    ]
    if bulk := report.get("bulk"):
        lines += [
            "", f"Beside batch calls at full load ({bulk['failed_logs']} of their logs failed):", "",
            *(f"| {' | '.join(row)} |" for row in table(bulk["steps"], capacity)),
        ]
    lines += ["", "| bar | measured | held |", "|---|---|---|"]
    lines += [f"| {name} | {text} | {'yes' if held else 'no'} |" for name, text, held in bars(report)]
    return "\n".join(lines) + "\n"


def top_of(highest):
    """The end of an axis of four equal steps, round ones."""
    step = 1
    while 4 * step < highest:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return 4 * step


class Panel:
    """One diagram; x from 0 to `x_max`, which is the largest factor if nothing else is said."""

    def __init__(self, left, title, x_max, highest, unit="x", of="offered, of capacity"):
        self.left, self.x_max, self.y_max = left, x_max, top_of(highest)
        self.parts = [f'<text class="title" x="{left}" y="{TOP - 18}">{title}</text>']
        for n in range(5):
            value = self.y_max * n / 4
            y = self.y(value)
            self.parts.append(f'<line class="grid" x1="{left}" x2="{left + PLOT_W}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        for n in range(0, int(x_max) + 1, max(1, int(x_max) // 6)):
            self.parts.append(f'<text x="{self.x(n):.1f}" y="{TOP + PLOT_H + 18}" text-anchor="middle">{n}{unit}</text>')
        self.parts.append(f'<text x="{left + PLOT_W / 2}" y="{TOP + PLOT_H + 36}" text-anchor="middle">{of}</text>')

    def x(self, value):
        return self.left + PLOT_W * value / self.x_max

    def y(self, value):
        return TOP + PLOT_H * (1 - min(value, self.y_max) / self.y_max)

    def line(self, kind, points, mark=False):
        at = [(self.x(x), self.y(y)) for x, y in points if y is not None]
        self.parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>')
        if mark:
            self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at]

    def keys(self, entries):
        for n, (kind, text) in enumerate(entries):
            x = self.left + n * PLOT_W / len(entries)
            y = HEIGHT - 12
            self.parts.append(f'<line class="key {kind}" x1="{x:.0f}" x2="{x + 22:.0f}" y1="{y - 4}" y2="{y - 4}"/>')
            self.parts.append(f'<text x="{x + 27:.0f}" y="{y}">{text}</text>')


def plot(report):
    capacity, alone = report["capacity"]["per_second"], report["alone"]
    bulk = report.get("bulk", {"steps": []})["steps"]
    x_max = max(step["factor"] for step in alone)
    rates = Panel(LEFT, "Answers a second", x_max, max(capacity, *(s["goodput_per_second"] for s in alone)))
    rates.line("ideal", [(0, 0), (1, capacity), (x_max, capacity)])
    rates.line("good", [(s["factor"], s["goodput_per_second"]) for s in alone], mark=True)
    rates.line("bulk", [(s["factor"], s["goodput_per_second"]) for s in bulk])
    keys = [("good", "alone"), ("bulk", "beside bulk")] if bulk else [("good", "alone")]
    rates.keys([*keys, ("ideal", "ideal")])
    latency = Panel(LEFT + PLOT_W + 100, "p99 of accepted requests, ms", x_max, 1.1 * report["timeout_ms"])
    latency.line("limit", [(0, report["timeout_ms"]), (x_max, report["timeout_ms"])])
    latency.line("good", [(s["factor"], s["p99_ms"]) for s in alone], mark=True)
    latency.line("bulk", [(s["factor"], s["p99_ms"]) for s in bulk])
    latency.keys([*keys, ("limit", "deadline")])
    return svg("Goodput and latency from half to three times of capacity", rates, latency)


def svg(title, *panels):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    title = f"<title>{title}</title>"
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", background, *(part for panel in panels for part in panel.parts), "</svg>"]) + "\n"
