#!/usr/bin/env python3
"""summary.md and plot.svg from the raw results of a run; it measures nothing and needs no package. A notes.md that somebody wrote
beside the results stands at the end.

Usage: sweep_report.py FOLDER      (run_sweep.py does it by itself)
"""
import json
import statistics
import sys
from pathlib import Path

import sweep_plot

PIPELINE = "transformers pipeline"
GRAPHS = ("stock fp32", "stock int8", "compiled fp32", "compiled int8")


def read(folder, name):
    path = folder / name
    return json.loads(path.read_text()) if path.is_file() else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


class Sweep:
    """sweep.json by setup, point and graph."""

    def __init__(self, content):
        self.content = content
        self.rounds = {(e["setup"], e["point"], e["graph"]): e["rounds"] for e in content["logs_per_second"]}
        self.setups = list(dict.fromkeys(e["setup"] for e in content["logs_per_second"]))
        self.points = list(dict.fromkeys(e["point"] for e in content["logs_per_second"]))
        self.cores = max(int(setup.split("x")[0]) for setup in self.setups)
        self.saturated = f"{self.cores}x1"

    def median(self, setup, point, graph):
        rounds = self.rounds.get((setup, point, graph))
        return statistics.median(rounds) if rounds else None

    def ratio(self, setup, points, graph, base):
        """The median over rounds, and the lowest of `points`, of the two graphs' ratio within a round."""
        found = []
        for point in points:
            of, to = self.rounds.get((setup, point, graph)), self.rounds.get((setup, point, base))
            if not of or not to:
                return None
            found.append(statistics.median(a / b for a, b in zip(of, to)))
        return min(found)


def setup_name(setup):
    sessions, threads = map(int, setup.split("x"))
    plural = "" if sessions == 1 else "s"
    return f"{sessions} session{plural} x {threads} thread{'' if threads == 1 else 's'}"


def point_name(point):
    logs, tokens = point.split("x")
    return f"{logs} log{'' if logs == '1' else 's'} x {tokens}"


def speed(value):
    return "-" if value is None else f"{value:.1f}"


def times(value):
    return "-" if value is None else f"{value:.2f}x"


def sweep_tables(sweep):
    out = []
    for setup in sweep.setups:
        out += ["", f"### {setup_name(setup)}, logs/s", ""]
        columns = [g for g in (*GRAPHS, PIPELINE) if any((setup, p, g) in sweep.rounds for p in sweep.points)]
        rows = []
        for point in sweep.points:
            base = sweep.rounds.get((setup, point, GRAPHS[0]))
            cells = []
            for graph in columns:
                cell = speed(sweep.median(setup, point, graph))
                if base and graph not in (GRAPHS[0], PIPELINE):
                    cell += f" ({times(sweep.ratio(setup, [point], graph, GRAPHS[0]))})"
                cells.append(cell)
            rows.append([point_name(point), *cells])
        out += table(["", *columns], rows)
    spreads = [(max(r) - min(r)) / statistics.median(r) for r in sweep.rounds.values()]
    out += ["", "In brackets: times stock fp32, the median of the ratios within a round. The pipeline's threads are torch's, and all rows "
            f"of a point are one batch. The rates of the {sweep.content['rounds']} rounds differ by "
            f"{100 * statistics.median(spreads):.0f} % (median), at most {100 * max(spreads):.0f} %."]  # fmt: skip
    return out


def bar_rows(sweep):
    """What issue 3 asks for, and what every setup reached; the worst point counts."""
    both = ["4x48", "8x48"]
    wanted = [
        ("compiled fp32 / stock fp32, 4 and 8 logs x 48", 1.35, both, "compiled fp32", "stock fp32"),
        ("compiled int8 / stock fp32, 4 and 8 logs x 48", 3.7, both, "compiled int8", "stock fp32"),
        ("compiled int8 / stock int8, 4 and 8 logs x 48", 1.9, both, "compiled int8", "stock int8"),
        ("compiled int8 / stock fp32, 1 log x 32", 3.3, ["1x32"], "compiled int8", "stock fp32"),
    ]
    for name, bar, points, graph, base in wanted:
        found = [sweep.ratio(setup, points, graph, base) for setup in sweep.setups]
        cells = ["-" if f is None else times(f) + (" met" if f >= bar else " missed") for f in found]
        yield [name, f">= {bar}x", *cells]


def serve_lines(serve):
    rounds = serve["rounds"]

    def middle(value):
        return statistics.median(map(value, rounds))

    share = middle(lambda r: r["http"]["answered_per_second"] / r["bare"]["logs_per_second"])
    one = middle(lambda r: r["http"]["answered_per_second"] / r["pipeline"]["one_by_one_logs_per_second"])
    many = middle(lambda r: r["http"]["answered_per_second"] / r["pipeline"]["batched_logs_per_second"])
    rows = [
        ["bare loop, compiled int8", speed(middle(lambda r: r["bare"]["logs_per_second"])), ""],
        ["HTTP at saturation, compiled int8", speed(middle(lambda r: r["http"]["answered_per_second"])),
         f"{share:.2f} of the bare loop (bar: 0.9)"],
        ["transformers pipeline, one by one", speed(middle(lambda r: r["pipeline"]["one_by_one_logs_per_second"])),
         f"HTTP is {one:.1f}x (bar: 20x)"],
        ["transformers pipeline, batch_size=32", speed(middle(lambda r: r["pipeline"]["batched_logs_per_second"])),
         f"HTTP is {many:.1f}x"],
    ]
    tokens = rounds[0]["pipeline"]["mean_tokens"]
    return ["", f"## Log lines ({tokens} tokens with a hypothesis on average)", "", *table(["", "logs/s", ""], rows)]


def memory_lines(memory):
    rows = []
    for name, found in memory["memory"].items():
        one, two = found["1_instances"], found["2_instances"]
        extra = found["second_instance_mb"]
        rows.append([
            name, f"{found['model_mb']:.0f}", *(f"{at[when]['rss']:.0f}" for at in (one, two) for when in ("started", "loaded")),
            f"{two['loaded']['peak']:.0f}", *(f"{extra[key]:.0f} ({100 * extra[key] / found['model_mb']:.0f} %)" for key in ("rss", "pss")),
        ])  # fmt: skip
    head = ["`serve`, MB", "graph and weights", "1 instance, idle", "loaded", "2 instances, idle", "loaded", "peak",
            "second instance adds, resident", "proportional"]  # fmt: skip
    return ["", "## Memory", "", *table(head, rows), "", "Resident memory; a page of the weights' file that two sessions have mapped "
            "counts twice in it, and once in the proportional set. Bars for compiled int8: at most 450 MB with two instances, a "
            "second instance below 10 % of the model."]


def compile_lines(compiled):
    rows = []
    for precision, found in compiled["compile"].items():
        steps = (("compile", "`oddlog compile`"), ("first_use", "first use of the weights"), ("second_use", "second use"))
        rows += [
            [precision, name, *(found[step][key] for key in ("seconds", "cpu_seconds")), f"{found[step]['peak_rss_mb']:.0f}"]
            for step, name in steps
        ]
    head = ["", "", "s", "s of processor", "peak MB"]
    return ["", "## Compiling", "", *table(head, rows), "", "A use is `oddlog analyze` of one line; the first one compiles, compares int8 "
            "with fp32 on sample logs and prepares the graph for this machine. Bars: compiling at most 60 s and 2,500 MB, later starts "
            "below 2 s."]  # fmt: skip


def write(folder):
    """Writes summary.md, and plot.svg where there is a sweep, into `folder`."""
    folder = Path(folder)
    parts = {name: read(folder, f"{name}.json") for name in ("sweep", "serve", "memory", "compile")}
    machines = [part["machine"] for part in parts.values() if part]
    if not machines:
        sys.exit(f"{folder} has no results")
    machine = machines[0]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    out = [
        f"# DeBERTa-v3-base (random weights of the true size), {machine['processor']}", "",
        f"{', '.join(machine['instructions'])}; {versions}; commit {', '.join(dict.fromkeys(m['commit'] for m in machines))}. "
        "2 hypotheses a log. Made by `benches/run_sweep.py`; raw results are beside this file.",
    ]  # fmt: skip
    if parts["sweep"]:
        sweep = Sweep(parts["sweep"])
        out += ["", "## Rows x length", "", "![logs/s](plot.svg)", ""]
        out += table(["bar", "", *map(setup_name, sweep.setups)], bar_rows(sweep))
        out += sweep_tables(sweep)
        sweep_plot.write(folder / "plot.svg", sweep, machine["processor"])
    for name, lines in (("serve", serve_lines), ("memory", memory_lines), ("compile", compile_lines)):
        if parts[name]:
            out += lines(parts[name])
    if (folder / "notes.md").is_file():
        out += ["", "## Notes", "", (folder / "notes.md").read_text().rstrip()]
    (folder / "summary.md").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
