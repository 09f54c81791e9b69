//! What is asked of each line: every template with every set of labels.

use std::{fmt, sync::Arc};

use crate::{classify::Task, engine::Handle, error::StartError};

/// One way to ask. What it leaves open is taken from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The hypothesis, with {} for the label.
    pub template: Option<String>,
    /// The candidate labels.
    pub labels: Option<Vec<String>>,
    /// The label that counts as the anomaly.
    pub anomaly_label: Option<String>,
}

/// All combinations of `templates` and label sets, each of which is written with commas.
pub fn of(templates: &[String], sets: &[String], anomaly_label: Option<&str>) -> Vec<Question> {
    let or_none = |given: &[String]| match given {
        [] => vec![None],
        _ => given.iter().cloned().map(Some).collect(),
    };
    let mut questions = Vec::new();
    for template in or_none(templates) {
        for set in or_none(sets) {
            let labels: Option<Vec<String>> =
                set.map(|set| set.split(',').map(|label| label.trim().to_owned()).collect());
            let has = |wanted: &str| labels.as_ref().is_none_or(|labels| labels.iter().any(|l| l == wanted));
            let anomaly_label = anomaly_label.filter(|wanted| has(wanted)).map(str::to_owned);
            questions.push(Question { template: template.clone(), labels, anomaly_label });
        }
    }
    questions
}

impl Question {
    /// It as what an engine is asked.
    ///
    /// # Errors
    /// [`StartError::Config`] says which part cannot be used.
    pub fn task(&self, handle: &Handle) -> Result<Arc<Task>, StartError> {
        let Self { template, labels, anomaly_label } = self.clone();
        handle.task(labels, anomaly_label, template, None).map_err(|e| StartError::Config(e.to_string()))
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.as_ref().map(|labels| labels.join(" / "));
        match (&self.template, labels) {
            (Some(template), Some(labels)) => write!(f, "{template} ({labels})"),
            (Some(text), None) => f.write_str(text),
            (None, Some(text)) => f.write_str(&text),
            (None, None) => f.write_str("as configured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_and_label_sets_are_combined() {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let names = |questions: Vec<Question>| questions.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(of(&[], &[], None)), ["as configured"]);
        let all = of(&own(&["A {}", "B {}"]), &own(&["bad, good", "odd,fine"]), Some("bad"));
        assert_eq!(all[0].labels, Some(own(&["bad", "good"])));
        assert_eq!((all[0].anomaly_label.as_deref(), all[1].anomaly_label.as_deref()), (Some("bad"), None));
        assert_eq!(names(all), ["A {} (bad / good)", "A {} (odd / fine)", "B {} (bad / good)", "B {} (odd / fine)"]);
    }
}
