//! Whether the verdicts on a template's members are known well enough to be given to one that was not scored.
//!
//! ```text
//! nothing scored -> learning -> trusted    another member's verdict would hardly differ: the scores are reused
//!                        `----> volatile   some members were scored and it still might: each is scored
//! ```
//!
//! Members' scores are taken as draws from one logistic distribution of logits, whose spread is first guessed and then
//! measured. Its share beyond the threshold is the **doubt**: the chance that the next member's verdict differs. A first member
//! far from the threshold is enough, near it more are needed, and members that scatter across it are never trusted.
//!
//! Pure: scores, thresholds and time are arguments. It knows neither messages nor what scoring costs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Spread of logits within a template, before any was measured: a standard deviation, and the number of members that it
/// counts as. Measured on LogHub's samples (`benches/template_memory.rs`).
const GUESSED_SPREAD: f32 = 0.15;
const GUESS_COUNTS: f32 = 2.0;

/// Members that are scored, at least, before a doubtful template counts as volatile.
const SETTLED: u32 = 4;

/// Members that are remembered, about: older ones fade.
const REMEMBERED: u32 = 64;

/// However sure it looks. On LogHub's samples half of it or twice as much gave as many equal verdicts.
const LEAST_DOUBT: f32 = 0.005;

/// Scores nearer to 0 or 1 are all the same.
const CERTAIN: f32 = 1e-3;

/// When scores are reused.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Scores, 0 to 1, at which the verdict changes.
    pub boundaries: Vec<f32>,
    /// 0 to 1: the largest doubt with which scores are reused.
    pub max_doubt: f32,
    /// Seconds after which a template that no member of was scored is learned anew.
    pub ttl_s: u64,
}

impl Policy {
    /// Whether two scores give the same verdict.
    pub fn agree(&self, one: f32, other: f32) -> bool {
        self.boundaries.iter().all(|boundary| (one >= *boundary) == (other >= *boundary))
    }
}

/// What is known of one template's verdicts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Members that were scored.
    scored: u32,
    /// Mean of their logits.
    mean: f32,
    /// Sum of their squared distances from it.
    scatter: f32,
    /// The scores of the member nearest to the mean, one a label.
    scores: Arc<[f32]>,
    /// That member's score of the anomaly label.
    score: f32,
    /// When the last one was scored, in seconds.
    learned_s: u64,
}

/// How far a template has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// More members are to be scored.
    Learning,
    /// Scores are reused.
    Trusted,
    /// Every member is scored.
    Volatile,
}

impl Trust {
    /// Takes in a member's scores, one a label, of which `score` is the anomaly label's.
    pub fn learn(&mut self, scores: &[f32], score: f32, now_s: u64) {
        // What is no number says nothing, and no snapshot could keep it.
        if !score.is_finite() || !scores.iter().all(|score| score.is_finite()) {
            return;
        }
        let logit = logit(score);
        if self.scored >= REMEMBERED {
            self.scatter *= 1.0 - 1.0 / self.scored as f32;
            self.scored = REMEMBERED - 1;
        }
        self.scored += 1;
        let off = logit - self.mean;
        self.mean += off / self.scored as f32;
        self.scatter += off * (logit - self.mean);
        self.learned_s = self.learned_s.max(now_s);
        if self.scored == 1 || (logit - self.mean).abs() < (self::logit(self.score) - self.mean).abs() {
            (self.scores, self.score) = (scores.into(), score);
        }
    }

    /// 0.005 to 1: the chance that the next member's verdict differs from that of [`scores`](Self::scores). 1 if nothing is
    /// known.
    pub fn doubt(&self, policy: &Policy, now_s: u64) -> f32 {
        if self.scored == 0 || now_s.saturating_sub(self.learned_s) >= policy.ttl_s {
            return 1.0;
        }
        let members = self.scored as f32;
        let variance = (GUESS_COUNTS * GUESSED_SPREAD.powi(2) + self.scatter.max(0.0)) / (GUESS_COUNTS + members - 1.0);
        // The next one scatters around a mean that is itself uncertain.
        let spread = (variance * (1.0 + 1.0 / members)).sqrt();
        let beyond = |boundary: f32| {
            let far = (self.mean - logit(boundary)) / spread;
            let far = if self.score >= boundary { far } else { -far };
            // A logistic distribution with that standard deviation.
            1.0 / (1.0 + (far * std::f32::consts::PI / 3f32.sqrt()).exp())
        };
        policy.boundaries.iter().map(|boundary| beyond(*boundary)).fold(LEAST_DOUBT, f32::max)
    }

    /// How far it has come.
    pub fn state(&self, policy: &Policy, now_s: u64) -> State {
        self.state_at(self.doubt(policy, now_s), policy)
    }

    /// How far it has come with this [`doubt`](Self::doubt).
    pub fn state_at(&self, doubt: f32, policy: &Policy) -> State {
        match doubt {
            doubt if doubt <= policy.max_doubt => State::Trusted,
            doubt if doubt < 1.0 && self.scored >= SETTLED => State::Volatile,
            _ => State::Learning,
        }
    }

    /// Whether it is something that was learned, of scores of `labels` labels.
    pub fn is_whole(&self, labels: usize) -> bool {
        let numbers = [self.mean, self.scatter, self.score];
        let finite = numbers.iter().chain(&*self.scores).all(|number| number.is_finite());
        self.scored > 0 && finite && self.scatter >= 0.0 && self.scores.len() == labels
    }

    /// Scores of a member like the others, one a label; empty if nothing is known.
    pub fn scores(&self) -> &Arc<[f32]> {
        &self.scores
    }

    /// That member's score of the anomaly label.
    pub fn score(&self) -> f32 {
        self.score
    }
}

fn logit(score: f32) -> f32 {
    let score = if score.is_finite() { score.clamp(CERTAIN, 1.0 - CERTAIN) } else { 0.5 };
    (score / (1.0 - score)).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy { boundaries: vec![0.5], max_doubt: 0.2, ttl_s: 60 }
    }

    fn learned(scores: &[f32]) -> Trust {
        let mut trust = Trust::default();
        scores.iter().for_each(|score| trust.learn(&[*score, 1.0 - *score], *score, 10));
        trust
    }

    fn state(scores: &[f32]) -> State {
        learned(scores).state(&policy(), 10)
    }

    #[test]
    fn a_first_member_far_from_the_threshold_is_enough() {
        assert_eq!(state(&[]), State::Learning);
        assert_eq!(state(&[0.9]), State::Trusted);
        assert_eq!(state(&[0.1]), State::Trusted);
        assert_eq!(state(&[0.51]), State::Learning);
        assert_eq!(state(&[0.49, 0.51]), State::Learning);
    }

    #[test]
    fn near_the_threshold_more_members_that_agree_are_needed() {
        let near = [0.52; 8];
        let needed = (1..8).find(|n| state(&near[..*n]) == State::Trusted).expect("at last it is trusted");
        assert!(needed > 1, "{needed}");
    }

    #[test]
    fn members_that_disagree_make_it_volatile() {
        assert_eq!(state(&[0.9, 0.1]), State::Learning);
        assert_eq!(state(&[0.9, 0.1, 0.8, 0.2]), State::Volatile);
        assert_eq!(state(&[0.9, 0.9, 0.2]), State::Learning);
        let calm: Vec<f32> = [0.9, 0.1, 0.8, 0.2].into_iter().chain([0.9; 200]).collect();
        assert_eq!(state(&calm), State::Trusted, "what was long ago fades");
    }

    #[test]
    fn what_is_reused_was_scored_and_is_in_the_middle() {
        let trust = learned(&[0.9, 0.6, 0.7]);
        assert_eq!((&**trust.scores(), trust.score()), (&[0.7, 1.0 - 0.7][..], 0.7));
    }

    #[test]
    fn it_is_learned_anew_after_its_time() {
        let mut trust = learned(&[0.9]);
        let at = |trust: &Trust, s| trust.state(&policy(), s);
        assert_eq!((at(&trust, 69), at(&trust, 70)), (State::Trusted, State::Learning));
        trust.learn(&[0.9, 0.1], 0.9, 70);
        assert_eq!((at(&trust, 70), at(&trust, 5)), (State::Trusted, State::Trusted));
    }

    #[test]
    fn the_nearest_of_many_thresholds_counts() {
        let strict = Policy { boundaries: vec![0.5, 0.9], ..policy() };
        let trust = learned(&[0.9]);
        assert_eq!((trust.state(&policy(), 10), trust.state(&strict, 10)), (State::Trusted, State::Learning));
        assert!(strict.agree(0.6, 0.8) && !strict.agree(0.8, 0.9) && !strict.agree(0.4, 0.5));
    }

    #[test]
    fn what_is_no_number_is_not_learned() {
        let mut trust = learned(&[0.9]);
        trust.learn(&[f32::NAN, 0.1], 0.9, 20);
        trust.learn(&[0.1, 0.9], f32::INFINITY, 20);
        assert_eq!(trust, learned(&[0.9]));
        assert!(trust.is_whole(2) && !trust.is_whole(3) && !Trust::default().is_whole(0));
    }

    #[test]
    fn it_survives_a_snapshot() {
        let trust = learned(&[0.9, 0.8]);
        let kept = serde_json::to_string(&trust).expect("plain data");
        assert_eq!(serde_json::from_str::<Trust>(&kept).expect("as written"), trust);
    }

    proptest! {
        #[test]
        fn doubt_is_a_chance_and_falls_with_distance(
            scores in prop::collection::vec(prop_oneof![0f32..=1.0, Just(f32::NAN), Just(0.0), Just(1.0)], 1..100),
            boundary in 0f32..=1.0,
        ) {
            let policy = Policy { boundaries: vec![boundary], ..policy() };
            let doubt = learned(&scores).doubt(&policy, 10);
            prop_assert!((LEAST_DOUBT..=1.0).contains(&doubt), "{doubt}");
        }

        #[test]
        fn further_away_is_trusted_sooner(score in 0.5f32..0.99, more in 0f32..0.5) {
            let further = (score + more).min(0.999);
            let doubt = |score: f32| learned(&[score]).doubt(&policy(), 10);
            prop_assert!(doubt(further) <= doubt(score));
        }
    }
}
