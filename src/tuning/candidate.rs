//! What is tuned: four keys of the configuration, and which values of them are tried.

use serde::Serialize;

use super::Sites;
use crate::{config::Config, device::CPU_RUN_TOKENS};

/// Most ways to divide the cores that are tried.
const MOST_SHAPES: usize = 8;

/// One setting of the tuned keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Workers on each device, each with a session of its own.
    pub instances: usize,
    /// `devices.intra_op_threads`.
    pub intra_op_threads: usize,
    /// `batching.max_batch_tokens`.
    pub max_batch_tokens: usize,
    /// `batching.max_queue_delay_us`.
    pub max_queue_delay_us: u64,
}

impl Candidate {
    /// What `config` says, with so many workers on each of `sites`.
    pub fn of(config: &Config, sites: &Sites, instances: usize) -> Self {
        Self {
            instances,
            intra_op_threads: config.devices.intra_op_threads,
            max_batch_tokens: config.batching.batch_tokens(sites.run_tokens()),
            max_queue_delay_us: config.batching.max_queue_delay_us,
        }
    }

    /// `config` with these settings, with workers on `devices`.
    pub fn apply(&self, config: &Config, devices: Vec<String>) -> Config {
        let mut config = config.clone();
        config.devices.devices = devices;
        config.devices.intra_op_threads = self.intra_op_threads;
        config.batching.max_batch_tokens = self.max_batch_tokens;
        config.batching.max_queue_delay_us = self.max_queue_delay_us;
        config
    }
}

/// The values that are tried, one axis after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// Instances and threads of each.
    pub shapes: Vec<(usize, usize)>,
    /// Tokens of a batch.
    pub tokens: Vec<usize>,
    /// Microseconds that a free device waits for company.
    pub delays: Vec<u64>,
}

/// Number of axes of a [`Grid`].
pub(super) const AXES: usize = 3;

impl Grid {
    /// The values worth trying on `cores` cores; fewer if `quick`. Devices other than the CPU have no threads.
    pub fn new(cores: usize, sites: &Sites, quick: bool) -> Self {
        let shapes = if sites.are_cpu() { cpu_shapes(cores) } else { vec![(1, 1), (2, 1), (4, 1)] };
        let (usual, delays) = match quick {
            true => (vec![256, 512, 1024], vec![0, 2000]),
            false => (vec![256, 512, 1024, 2048], vec![0, 1000, 4000]),
        };
        let times = sites.run_tokens() / CPU_RUN_TOKENS;
        Self { shapes, tokens: usual.into_iter().map(|tokens| tokens * times).collect(), delays }
    }

    /// `from` with each value of one axis, but not `from` itself.
    pub(super) fn neighbours(&self, axis: usize, from: Candidate) -> Vec<Candidate> {
        let all: Vec<Candidate> = match axis {
            0 => self
                .shapes
                .iter()
                .map(|&(instances, intra_op_threads)| Candidate { instances, intra_op_threads, ..from })
                .collect(),
            1 => self.tokens.iter().map(|&max_batch_tokens| Candidate { max_batch_tokens, ..from }).collect(),
            _ => self.delays.iter().map(|&max_queue_delay_us| Candidate { max_queue_delay_us, ..from }).collect(),
        };
        all.into_iter().filter(|c| *c != from).collect()
    }
}

/// All cores in use first, from many small sessions to one large; then half of the cores.
fn cpu_shapes(cores: usize) -> Vec<(usize, usize)> {
    let threads = || std::iter::successors(Some(1), |t| Some(t * 2)).take_while(|t| *t <= cores);
    let whole = threads().map(|t| (cores / t, t));
    let half = threads().filter(|t| cores / t >= 2).map(|t| (cores / t / 2, t));
    whole.chain(half).take(MOST_SHAPES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Place;

    #[test]
    fn cores_are_divided_without_taking_more_than_there_are() {
        assert_eq!(cpu_shapes(1), [(1, 1)]);
        assert_eq!(cpu_shapes(2), [(2, 1), (1, 2), (1, 1)]);
        assert_eq!(cpu_shapes(6), [(6, 1), (3, 2), (1, 4), (3, 1), (1, 2)]);
        for cores in 1..=300 {
            let shapes = cpu_shapes(cores);
            assert!(shapes.len() <= MOST_SHAPES && shapes.iter().all(|(i, t)| *i >= 1 && i * t <= cores));
        }
    }

    #[test]
    fn a_candidate_comes_back_from_the_configuration_it_made() {
        let config = Config::default();
        let sites = Sites::of(&[Place::Cpu]).unwrap().0;
        let current = Candidate::of(&config, &sites, 4);
        assert_eq!((current.instances, current.intra_op_threads), (4, 1));
        for axis in 0..AXES {
            let grid = Grid::new(4, &sites, false);
            let neighbours = grid.neighbours(axis, current);
            assert_eq!(neighbours.len(), [grid.shapes.len(), grid.tokens.len(), grid.delays.len()][axis] - 1);
            for candidate in neighbours {
                let applied = candidate.apply(&config, sites.entries(candidate.instances));
                applied.check().unwrap();
                assert_eq!(applied.devices.devices, vec!["cpu"; candidate.instances]);
                assert_eq!(Candidate::of(&applied, &sites, candidate.instances), candidate);
            }
        }
    }
}
