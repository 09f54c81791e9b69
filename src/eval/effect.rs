//! What a way to save work does to the verdicts: its scores beside those that it stands for.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    Example,
    metrics::{Summary, summarise},
};

/// One way to come to the scores, beside the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// What the reader calls it.
    pub name: String,
    /// How its lines were answered, if a memory of verdicts was asked.
    pub memory: Option<Remembered>,
    /// Lines with the reference's verdict.
    pub equal_verdicts: usize,
    /// Share of these, 0 to 1; 0 if there are no lines.
    pub equal_share: f64,
    /// Largest difference from the reference's score of the same line, 0 to 1.
    pub largest_difference: f64,
    /// Mean of these differences, 0 to 1.
    pub mean_difference: f64,
    /// Its figures against the truth.
    pub all: Summary,
    /// The lines whose verdict is another one than the reference's, the farthest apart first, equal ones together; at most
    /// [`MOST_CHANGED`].
    pub changed: Vec<Changed>,
}

/// A line with two verdicts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// How often it stands there with these scores.
    pub lines: usize,
    /// The line.
    pub text: String,
    /// Whether it is an anomaly in truth.
    pub anomalous: bool,
    /// The reference's score.
    pub reference: f64,
    /// This one's score.
    pub score: f64,
}

/// Most lines with another verdict that are kept.
pub const MOST_CHANGED: usize = 12;

/// How the lines of a data set were answered. The first four make all lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Remembered {
    /// By the model.
    pub misses: usize,
    /// From memory: the same text, or the same tokens, was scored.
    pub hits: usize,
    /// With what a twin got that was being scored.
    pub joined: usize,
    /// With the scores of another line of its template.
    pub templates: usize,
    /// Of the latter, those that were scored all the same, to see whether the verdict differs.
    pub checks: usize,
    /// Checks in which it did.
    pub checks_differ: usize,
}

/// Several ways beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What is compared, as a heading.
    pub title: &'static str,
    /// What the reader must know to read it, in whole sentences.
    pub note: String,
    /// The ways; the first is the reference.
    pub effects: Vec<Effect>,
}

impl Changed {
    fn difference(&self) -> f64 {
        (self.reference - self.score).abs()
    }
}

impl Remembered {
    /// Lines that the model read.
    pub fn to_model(&self) -> usize {
        self.misses + self.checks
    }
}

impl Effect {
    /// Sets `scores` beside the `reference`'s, one for each example. A score of at least `threshold` is an anomaly; one
    /// that is not a number differs from everything by 1.
    ///
    /// # Panics
    /// If the lists are of different lengths.
    pub fn between(name: &str, reference: &[f64], scores: &[f64], examples: &[Example], threshold: f64) -> Self {
        assert!(reference.len() == examples.len() && scores.len() == examples.len(), "scores of the same lines");
        let (mut equal, mut largest, mut sum) = (0, 0.0f64, 0.0);
        for (a, b) in reference.iter().zip(scores) {
            let is_number = !a.is_nan() && !b.is_nan();
            let difference = if is_number { (a - b).abs() } else { 1.0 };
            equal += usize::from(is_number && (*a >= threshold) == (*b >= threshold));
            largest = largest.max(difference);
            sum += difference;
        }
        let lines = examples.len().max(1) as f64;
        let both = reference.iter().zip(scores).zip(examples).map(|((a, b), e)| (*a, *b, e));
        let changed = both.filter(|(a, b, _)| (*a >= threshold) != (*b >= threshold));
        let scored: Vec<(f64, bool)> = scores.iter().zip(examples).map(|(score, e)| (*score, e.anomalous)).collect();
        Self {
            name: name.to_owned(),
            memory: None,
            equal_verdicts: equal,
            equal_share: equal as f64 / lines,
            largest_difference: largest,
            mean_difference: sum / lines,
            all: summarise(&scored, threshold),
            changed: farthest_apart(changed),
        }
    }

    /// With how its lines were answered.
    #[must_use]
    pub fn answered(self, memory: Remembered) -> Self {
        Self { memory: Some(memory), ..self }
    }
}

/// Of (reference, score, example), the most that are kept.
fn farthest_apart<'a>(lines: impl Iterator<Item = (f64, f64, &'a Example)>) -> Vec<Changed> {
    let (mut places, mut changed) = (HashMap::new(), Vec::<Changed>::new());
    for (reference, score, example) in lines {
        let key = (&example.text, example.anomalous, reference.to_bits(), score.to_bits());
        let place = *places.entry(key).or_insert(changed.len());
        match changed.get_mut(place) {
            Some(known) => known.lines += 1,
            None => {
                let text = example.text.clone();
                changed.push(Changed { lines: 1, text, anomalous: example.anomalous, reference, score });
            }
        }
    }
    changed.sort_by(|a, b| b.difference().total_cmp(&a.difference()));
    changed.truncate(MOST_CHANGED);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_each_line() {
        let example = |anomalous| Example { text: "x".into(), anomalous, group: None };
        let examples = [example(true), example(true), example(false), example(false)];
        let effect = Effect::between("int8", &[0.9, 0.5, 0.4, 0.1], &[0.8, 0.49, 0.6, 0.1], &examples, 0.5);
        assert_eq!((effect.equal_verdicts, effect.equal_share), (2, 0.5));
        assert!((effect.largest_difference - 0.2).abs() < 1e-12);
        assert!((effect.mean_difference - 0.31 / 4.0).abs() < 1e-12);
        assert_eq!((effect.all.precision, effect.all.recall), (0.5, 0.5));
        let changed: Vec<(f64, f64, bool)> =
            effect.changed.iter().map(|c| (c.reference, c.score, c.anomalous)).collect();
        assert_eq!(changed, [(0.4, 0.6, false), (0.5, 0.49, true)]);
        let again = Effect::between("x", &[0.4, 0.4, 0.4, 0.4], &[0.6, 0.6, 0.6, 0.7], &examples, 0.5).changed;
        let lines: Vec<(usize, f64)> = again.iter().map(|changed| (changed.lines, changed.score)).collect();
        assert_eq!(lines, [(1, 0.7), (2, 0.6), (1, 0.6)], "equal lines with one truth and one score are one");
        let nan = Effect::between("x", &[f64::NAN; 4], &[f64::NAN, 0.9, 0.1, 0.1], &examples, 0.5);
        assert_eq!((nan.equal_verdicts, nan.largest_difference), (0, 1.0));
        assert_eq!(Effect::between("x", &[], &[], &[], 0.5).equal_share, 0.0);
    }
}
