//! What is tuned: the devices, each named once, all of one kind.

use crate::device::{CPU_RUN_TOKENS, GPU_RUN_TOKENS, Place};

/// Devices of one kind, each once; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sites {
    places: Vec<Place>,
}

impl Sites {
    /// The devices that workers at `places` have, and how many workers each of them has.
    ///
    /// # Errors
    /// A text that says why these cannot be tuned together: devices of several kinds, or workers unevenly divided.
    pub fn of(places: &[Place]) -> Result<(Self, usize), String> {
        let mut each: Vec<(Place, usize)> = Vec::new();
        for place in places {
            match each.iter_mut().find(|(known, _)| known == place) {
                Some((_, count)) => *count += 1,
                None => each.push((*place, 1)),
            }
        }
        let (places, counts): (Vec<Place>, Vec<usize>) = each.into_iter().unzip();
        let names: Vec<String> = places.iter().map(Place::to_string).collect();
        let remedy = "choose with --device what is to be tuned";
        let kinds = places.chunk_by(|one, two| std::mem::discriminant(one) == std::mem::discriminant(two));
        if kinds.count() != 1 {
            return Err(format!("devices.devices names several kinds, {names:?}; tune measures one: {remedy}"));
        }
        let workers = counts[0];
        if counts.iter().any(|count| *count != workers) {
            return Err(format!(
                "devices.devices has {counts:?} workers on {names:?}; tune needs as many on each: {remedy}"
            ));
        }
        Ok((Self { places }, workers))
    }

    /// `devices.devices` for so many workers on each device.
    pub fn entries(&self, workers: usize) -> Vec<String> {
        self.places.iter().flat_map(|place| std::iter::repeat_n(place.to_string(), workers)).collect()
    }

    /// How many devices there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether they are GPUs.
    pub fn are_gpus(&self) -> bool {
        matches!(self.places[0], Place::Cuda(_))
    }

    /// Whether it is the CPU, whose workers have threads.
    pub fn are_cpu(&self) -> bool {
        self.places[0] == Place::Cpu
    }

    /// Tokens of a run that suit them.
    pub fn run_tokens(&self) -> usize {
        if self.are_gpus() { GPU_RUN_TOKENS } else { CPU_RUN_TOKENS }
    }
}

impl std::fmt::Display for Sites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.places.iter().map(Place::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_counts_once_and_comes_back_with_its_workers() {
        let (sites, workers) = Sites::of(&[Place::Cpu; 4]).unwrap();
        assert_eq!((sites.entries(2), workers, sites.count()), (vec!["cpu".to_owned(); 2], 4, 1));
        assert!(sites.are_cpu() && !sites.are_gpus() && sites.run_tokens() == CPU_RUN_TOKENS);
        let (sites, workers) = Sites::of(&[Place::Cuda(0), Place::Cuda(2), Place::Cuda(0), Place::Cuda(2)]).unwrap();
        assert_eq!((sites.to_string(), workers), ("cuda:0, cuda:2".to_owned(), 2));
        assert_eq!(sites.entries(2), ["cuda:0", "cuda:0", "cuda:2", "cuda:2"]);
        assert!(sites.are_gpus() && sites.run_tokens() == GPU_RUN_TOKENS);
    }

    #[test]
    fn what_cannot_be_tuned_together_is_told() {
        let mixed = Sites::of(&[Place::Cpu, Place::Cuda(0)]).unwrap_err();
        assert!(mixed.contains("several kinds") && mixed.contains("--device"), "{mixed}");
        let uneven = Sites::of(&[Place::Cuda(0), Place::Cuda(0), Place::Cuda(1)]).unwrap_err();
        assert!(uneven.contains("[2, 1] workers") && uneven.contains("cuda:1"), "{uneven}");
    }
}
