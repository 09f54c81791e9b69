//! A page's section about what settings do to the verdicts: a table, with how much work each saves as a bar.

use std::fmt::Write;

use super::{
    Comparison, Effect,
    effect::Remembered,
    page::{escaped, shown},
};

/// A part of a bar: its class in the style, what it stands for, and how many lines it has.
struct Part(&'static str, &'static str, fn(&Remembered) -> usize);

const PARTS: [Part; 3] = [
    Part("model", "read by the model", Remembered::to_model),
    Part("same", "answered because the same was known", |m| m.hits + m.joined),
    Part("kind", "answered by their template, without a check", |m| m.templates - m.checks.min(m.templates)),
];

/// Writes the section.
pub fn section(out: &mut String, comparison: &Comparison) {
    let memory = comparison.effects.iter().any(|effect| effect.memory.is_some());
    let heads = ["equal verdicts", "largest diff.", "mean diff.", "precision", "recall", "F1"];
    let _ = write!(out, "<h2>{}</h2>\n<div class=\"scroll\"><table class=\"effects\"><tr><th></th>", comparison.title);
    if memory {
        out.push_str("<th colspan=\"2\">lines to the model</th><th>checks that differ</th>");
    }
    heads.iter().for_each(|head| out.push_str(&format!("<th>{head}</th>")));
    out.push_str("</tr>\n");
    for effect in &comparison.effects {
        let _ = write!(out, "<tr><td>{}</td>", escaped(&effect.name));
        if let Some(memory) = &effect.memory {
            work(out, memory, effect.all.lines);
        }
        figures(out, effect);
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n<p class=\"key\">");
    if memory {
        for Part(class, what, _) in PARTS {
            let _ = write!(out, "<span class=\"swatch {class}\"></span>{what} &nbsp; ");
        }
        out.push_str("</p>\n<p class=\"key\">");
    }
    let _ = writeln!(out, "{}</p>", escaped(&comparison.note));
    comparison.effects.iter().for_each(|effect| changed(out, effect));
}

/// The lines that get another verdict.
fn changed(out: &mut String, effect: &Effect) {
    let all = effect.all.lines - effect.equal_verdicts;
    if effect.changed.is_empty() {
        return;
    }
    let name = escaped(&effect.name);
    let _ = write!(
        out,
        "<h3>Other verdicts with {name}: {all}</h3>\n<table class=\"log\"><tr><th>score</th><th>with {name}</th>\
         <th>truth</th><th>lines</th><th></th></tr>\n"
    );
    for line in &effect.changed {
        let (truth, text) = (if line.anomalous { "anomalous" } else { "normal" }, shown(&line.text));
        let _ = writeln!(
            out,
            "<tr><td>{:.3}</td><td>{:.3}</td><td>{truth}</td><td>{}</td><td>{text}</td></tr>",
            line.reference, line.score, line.lines
        );
    }
    out.push_str("</table>\n");
    if all > effect.changed.iter().map(|line| line.lines).sum() {
        let _ = writeln!(out, "<p class=\"key\">The {} that are farthest apart.</p>", effect.changed.len());
    }
}

/// The cells of a memory.
fn work(out: &mut String, memory: &Remembered, lines: usize) {
    let percent = |part: usize| 100.0 * part as f64 / lines.max(1) as f64;
    out.push_str("<td class=\"work\"><span class=\"bar\">");
    for Part(class, what, part) in PARTS {
        let part = part(memory);
        let _ = write!(
            out,
            "<span class=\"{class}\" style=\"width:{:.2}%\" title=\"{part} lines {what}\"></span>",
            percent(part)
        );
    }
    let to_model = memory.to_model();
    let _ = write!(out, "</span></td><td>{to_model}<small>{:.2} %</small></td>", percent(to_model));
    match memory.checks {
        0 => out.push_str("<td>-</td>"),
        checks => {
            let _ = write!(out, "<td>{} of {checks}</td>", memory.checks_differ);
        }
    }
}

fn figures(out: &mut String, effect: &Effect) {
    let _ = write!(out, "<td>{}<small>{:.2} %</small></td>", effect.equal_verdicts, 100.0 * effect.equal_share);
    for difference in [effect.largest_difference, effect.mean_difference] {
        let _ = write!(out, "<td>{difference:.4}</td>");
    }
    for figure in [effect.all.precision, effect.all.recall, effect.all.f1] {
        let _ = write!(out, "<td>{figure:.3}</td>");
    }
}
