//! The simulation's results as a table, as JSON and as a picture.

use std::{fmt::Write, fs, io, path::Path};

use super::{Row, real::Real};

const COLUMNS: &str = "| what | devices | policy | load | logs/s | in time/s | busy | padding | by company | p50 ms | p99 ms | tokens/run | left |";

fn line(row: &Row) -> String {
    let Row { part, devices, policy, load, outcome: o } = row;
    let load = load.map_or("-".into(), |load| format!("{load:.2}"));
    format!(
        "| {part} | {devices} | {policy} | {load} | {:.0} | {:.0} | {:.1} % | {:.1} % | {:.1} % | {:.2} | {:.2} | {:.0} | {} |",
        o.logs_per_s,
        o.good_per_s,
        100.0 * o.utilisation,
        100.0 * o.padding,
        100.0 * o.padding_by_company,
        o.p50_ms,
        o.p99_ms,
        o.tokens_per_run,
        o.left_to_faster,
    )
}

fn table(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.iter().map(line).collect();
    format!("{COLUMNS}\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n{}\n", lines.join("\n"))
}

fn real_table(real: &[Real]) -> String {
    let line = |r: &Real| format!("| {} | {:.0} | {:.1} | {:.1} |\n", r.devices, r.logs_per_s, r.p50_ms, r.p99_ms);
    let lines: String = real.iter().map(line).collect();
    format!("| devices | logs/s | p50 ms | p99 ms |\n|--:|--:|--:|--:|\n{lines}")
}

pub fn print(rows: &[Row], real: &[Real]) {
    println!("{}\n{}", table(rows), real_table(real));
}

pub fn write(out: &Path, rows: &[Row], real: &[Real], p99_ms: f64) -> io::Result<()> {
    fs::create_dir_all(out)?;
    fs::write(
        out.join("results.json"),
        serde_json::to_string_pretty(&serde_json::json!({ "simulated": rows, "real_threads": real }))? + "\n",
    )?;
    let head = "# The scheduler, simulated\n\nMade by `cargo bench --bench simulation`; `busy` is the share of time in which a device \
                computes, `by company` the\npadding beyond rounding each log up to 8 tokens, `left` how often a device left work to \
                faster ones. A load of 1 is\nwhat the devices do when all logs wait from the beginning.\n\n![p99 over load](plot.svg)\n";
    fs::write(
        out.join("summary.md"),
        format!(
            "{head}\nAn answer is in time within {p99_ms} ms.\n\n{}\nThe real engine with devices that only wait (5 ms and 10 us a token):\n\n{}",
            table(rows),
            real_table(real)
        ),
    )?;
    fs::write(out.join("plot.svg"), plot(rows))
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#2ca02c", "#9467bd", "#d62728"];

/// p99 over load; full lines are oddlog's, dashed ones FIFO's.
fn plot(rows: &[Row]) -> String {
    let x = |load: f64| 60.0 + load / 1.1 * (WIDTH - 80.0);
    // From 1 ms to 1 s.
    let y = |ms: f64| HEIGHT - 45.0 - (ms.clamp(1.0, 1000.0).log10() / 3.0) * (HEIGHT - 65.0);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
"#
    );
    for (ms, label) in [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s")] {
        let up = y(ms);
        let _ = writeln!(
            svg,
            r##"<path d="M60 {up:.1}H{:.0}" stroke="#ddd"/><text x="54" y="{:.1}" text-anchor="end">{label}</text>"##,
            WIDTH - 20.0,
            up + 4.0
        );
    }
    for load in [0.1, 0.3, 0.5, 0.7, 0.9, 1.1] {
        let _ = writeln!(svg, r#"<text x="{:.1}" y="{}" text-anchor="middle">{load}</text>"#, x(load), HEIGHT - 26.0);
    }
    let _ = writeln!(svg, r#"<text x="{}" y="{}" text-anchor="middle">load</text>"#, WIDTH / 2.0, HEIGHT - 8.0);
    let _ = writeln!(svg, r#"<text x="66" y="16">p99 over load; dashed: naive FIFO</text>"#);
    for (at, count) in [1, 2, 4, 8].into_iter().enumerate() {
        let devices = format!("{count} fast");
        for (policy, dash) in [("oddlog", ""), ("fifo", "5 4")] {
            let of = rows.iter().filter(|r| r.part == "load" && r.devices == devices && r.policy == policy);
            let points: Vec<String> =
                of.map(|row| format!("{:.1},{:.1}", x(row.load.unwrap_or_default()), y(row.outcome.p99_ms))).collect();
            let _ = writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{dash}"/>"#,
                points.join(" "),
                COLOURS[at],
            );
        }
        let (left, plural) = (70 + 110 * at, if count == 1 { "" } else { "s" });
        let _ = writeln!(svg, r#"<text x="{left}" y="34" fill="{}">{count} device{plural}</text>"#, COLOURS[at]);
    }
    svg + "</svg>\n"
}
