//! Scores of a known model for known logs, printed by the notebooks of the service that oddlog replaces.

/// A log and the anomaly score that the model gives it with the default labels and template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Golden {
    /// The log.
    pub log: &'static str,
    /// Its anomaly score, 0 to 1.
    pub score: f32,
    /// How far a right answer may lie from it.
    pub tolerance: f32,
}

const MODEL: &str = "MoritzLaurer/deberta-v3-base-zeroshot-v2.0";

const GOLDEN: [Golden; 2] = [
    Golden {
        log: "System.OutOfMemoryException: Exception of type 'System.OutOfMemoryException' was thrown. \
              correlation_id=c94ee0ca-c95d-4d3b-b7e1-c9026f2c8eb5",
        score: 0.976_557_73,
        tolerance: 1e-3,
    },
    Golden {
        log: "request body exceeds the configured limit, client=55.213.84.244, \
              req=9314f2e5-03dd-47b6-9354-76a258ef8be6",
        score: 0.9945,
        tolerance: 1e-3,
    },
];

/// The golden scores of the model whose repository `name` (owner/name, perhaps with a revision) is; none for others.
pub fn golden_of(name: &str) -> &'static [Golden] {
    let repository = name.split('@').next().unwrap_or_default();
    if repository.eq_ignore_ascii_case(MODEL) { &GOLDEN } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_belong_to_one_model() {
        assert_eq!(golden_of("MoritzLaurer/deberta-v3-base-zeroshot-v2.0").len(), 2);
        assert_eq!(golden_of("moritzlaurer/deberta-v3-base-zeroshot-v2.0@main").len(), 2);
        assert!(golden_of("MoritzLaurer/deberta-v3-base-zeroshot-v2.0-c").is_empty() && golden_of("").is_empty());
        assert!(GOLDEN[0].log.contains("thrown. correlation_id") && GOLDEN[1].log.contains("244, req="));
    }
}
