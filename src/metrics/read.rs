//! Looking up what was counted, for commands that report it.

use super::Metrics;

impl Metrics {
    /// The value of one counter or gauge, as the Prometheus text writes it: `oddlog_expired_total`,
    /// `oddlog_template_checks_total{result="agreed"}`. `None` if there is none.
    pub fn value(&self, sample: &str) -> Option<f64> {
        let text = self.render();
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let metrics = Metrics::new().unwrap();
        let trust = metrics.trust();
        trust.check_agreed.increment(7);
        trust.disagreement.set(0.25);
        let of = |result: &str| metrics.value(&format!("oddlog_template_checks_total{{result=\"{result}\"}}"));
        assert_eq!((of("agreed"), of("disagreed"), of("no such")), (Some(7.0), Some(0.0), None));
        assert_eq!(metrics.value("oddlog_template_disagreement_ratio"), Some(0.25));
        assert_eq!(metrics.value("oddlog_template_disagreement"), None);
    }
}
