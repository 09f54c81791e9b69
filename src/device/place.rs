//! Where the model runs: what `devices.devices` asks for, and what there is. Pure.

use std::fmt;

use super::onnx::{CudaError, Survey};
use crate::error::StartError;

/// Where one worker runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Threads of the CPU.
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
    /// A fake, for measuring what is not the model.
    Fake,
}

/// As `devices.devices` names it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Fake => f.write_str("fake"),
            Self::Cuda(gpu) => write!(f, "cuda:{gpu}"),
        }
    }
}

/// A worker each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where they run.
    pub places: Vec<Place>,
    /// Why `auto` took what it took, if it was asked for.
    pub reason: Option<Reason>,
}

/// Why `auto` took what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For the operator.
    pub text: String,
    /// The same for pages that more people see: without paths.
    pub brief: String,
    /// Whether there is something better that cannot be used.
    pub is_second_best: bool,
}

impl Placement {
    /// Places for `entries`: `auto` is every GPU that works, else `cpus` workers on the CPU; `cuda` is every GPU;
    /// `cuda:0`, `cpu` and `fake` are one worker each. `survey` is asked only if need be, whether a GPU was named.
    ///
    /// # Errors
    /// [`StartError::Device`] for an entry that is not known, and for a GPU that was named and cannot be used.
    /// Those of `survey`.
    pub fn choose(
        entries: &[String],
        cpus: usize,
        survey: impl Fn(bool) -> Result<Result<Survey, CudaError>, StartError>,
    ) -> Result<Self, StartError> {
        let mut placement = Self { places: Vec::new(), reason: None };
        for entry in entries {
            let fail = |reason: String| StartError::Device { name: entry.clone(), reason };
            let unusable = |error: CudaError| fail(error.to_string());
            match entry.as_str() {
                "cpu" => placement.places.push(Place::Cpu),
                "fake" => placement.places.push(Place::Fake),
                "auto" => placement.take_best(cpus, survey(false)?),
                "cuda" => {
                    for (gpu, works) in survey(true)?.map_err(unusable)?.gpus {
                        works.map_err(|e| fail(format!("GPU {} ({}): {e}", gpu.index, gpu.name)))?;
                        placement.places.push(Place::Cuda(gpu.index));
                    }
                }
                other => {
                    let index = other.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                    let index: u32 = index.ok_or_else(|| {
                        fail(
                            "is not known. Use \"auto\", \"cpu\", \"cuda\" (every GPU) or \"cuda:0\", \"cuda:1\", ..."
                                .into(),
                        )
                    })?;
                    let gpus = survey(true)?.map_err(unusable)?.gpus;
                    let count = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
                    let found = gpus.into_iter().find(|(gpu, _)| gpu.index == index);
                    let (_, works) = found.ok_or_else(|| unusable(CudaError::NoSuchGpu { index, count }))?;
                    works.map_err(unusable)?;
                    placement.places.push(Place::Cuda(index));
                }
            }
        }
        Ok(placement)
    }

    fn take_best(&mut self, cpus: usize, survey: Result<Survey, CudaError>) {
        let (mut names, mut faults) = (Vec::new(), Vec::new());
        let mut is_second_best = true;
        match survey {
            Ok(survey) => {
                for (gpu, works) in survey.gpus {
                    match works {
                        Ok(()) => {
                            self.places.push(Place::Cuda(gpu.index));
                            names.push(gpu.name);
                        }
                        Err(error) => faults.push(
                            [error.to_string(), error.brief()]
                                .map(|why| format!("GPU {} ({}) is not used: {why}", gpu.index, gpu.name)),
                        ),
                    }
                }
            }
            Err(error) => {
                is_second_best = !matches!(error, CudaError::NoDriver | CudaError::NoGpu { .. });
                faults.push([error.to_string(), error.brief()]);
            }
        }
        let taken = match names.len() {
            0 => {
                self.places.extend(std::iter::repeat_n(Place::Cpu, cpus));
                "the CPU".to_owned()
            }
            count => format!("{count} GPU(s), {}", names.join(", ")),
        };
        is_second_best &= !faults.is_empty();
        let because = |which: usize| {
            let faults: Vec<&str> = faults.iter().map(|texts| texts[which].as_str()).collect();
            if faults.is_empty() { taken.clone() } else { format!("{taken}, because {}", faults.join("; ")) }
        };
        self.reason = Some(Reason { text: because(0), brief: because(1), is_second_best });
    }

    /// Workers and their names: `cpu:0`, `cpu:1`; `cuda:0`, and `cuda:0/2` for the second one on that GPU.
    pub fn named(&self) -> Vec<(String, Place)> {
        let nth = |i: usize| self.places[..i].iter().filter(|place| **place == self.places[i]).count();
        let name = |(i, place): (usize, &Place)| match (place, nth(i)) {
            (Place::Cpu, n) => format!("cpu:{n}"),
            (Place::Fake, n) => format!("fake:{n}"),
            (Place::Cuda(index), 0) => format!("cuda:{index}"),
            (Place::Cuda(index), n) => format!("cuda:{index}/{}", n + 1),
        };
        self.places.iter().enumerate().map(|entry| (name(entry), *entry.1)).collect()
    }

    /// Whether any of them is a GPU.
    pub fn has_gpu(&self) -> bool {
        self.places.iter().any(|place| matches!(place, Place::Cuda(_)))
    }

    /// How many workers share the GPU.
    pub fn instances(&self, gpu: u32) -> usize {
        self.places.iter().filter(|place| **place == Place::Cuda(gpu)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::driver::Gpu;

    fn gpus(works: &[bool]) -> Result<Survey, CudaError> {
        let gpu = |(i, works): (usize, &bool)| {
            let gpu = Gpu { index: i as u32, name: format!("G{i}"), memory: 1 << 30 };
            (gpu, if *works { Ok(()) } else { Err(CudaError::Full) })
        };
        Ok(Survey { gpus: works.iter().enumerate().map(gpu).collect(), cuda: "13.0".into() })
    }

    fn choose(entries: &[&str], survey: Result<Survey, CudaError>) -> Result<Placement, String> {
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        Placement::choose(&entries, 3, |_| Ok(survey.clone())).map_err(|e| e.to_string())
    }

    fn names(placement: &Placement) -> Vec<String> {
        placement.named().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn auto_takes_the_gpus_that_work_else_the_cpu_and_says_why() {
        let both = choose(&["auto"], gpus(&[true, true])).unwrap();
        assert_eq!(names(&both), ["cuda:0", "cuda:1"]);
        let text = "2 GPU(s), G0, G1".to_owned();
        assert_eq!(both.reason.unwrap(), Reason { brief: text.clone(), text, is_second_best: false });
        let one = choose(&["auto"], gpus(&[false, true])).unwrap();
        assert_eq!(names(&one), ["cuda:1"]);
        let reason = one.reason.unwrap();
        assert!(reason.is_second_best && reason.text.contains("GPU 0 (G0) is not used"), "{}", reason.text);
        let none = choose(&["auto"], gpus(&[false])).unwrap();
        assert!(names(&none) == ["cpu:0", "cpu:1", "cpu:2"] && none.reason.unwrap().is_second_best);
        let cpu = choose(&["auto"], Err(CudaError::NoDriver)).unwrap();
        assert!(names(&cpu).len() == 3 && !cpu.reason.unwrap().is_second_best);
        let built = CudaError::NotBuiltIn { library: "/home/a/libonnxruntime.so".into() };
        let reason = choose(&["auto"], Err(built)).unwrap().reason.unwrap();
        assert!(reason.is_second_best && reason.text.contains("/home/a/libonnxruntime.so"), "{}", reason.text);
        assert!(reason.brief.contains("without CUDA") && !reason.brief.contains("/home"), "{}", reason.brief);
    }

    #[test]
    fn entries_are_instances_with_names_of_their_own() {
        let placement = choose(&["cuda:0", "cuda:0", "cuda:1", "cpu"], gpus(&[true, true])).unwrap();
        assert_eq!(names(&placement), ["cuda:0", "cuda:0/2", "cuda:1", "cpu:0"]);
        assert_eq!((placement.instances(0), placement.instances(1), placement.has_gpu()), (2, 1, true));
        assert_eq!(names(&choose(&["cuda"], gpus(&[true, true])).unwrap()), ["cuda:0", "cuda:1"]);
    }

    #[test]
    fn what_was_named_and_cannot_be_used_is_an_error() {
        for (entry, survey, expected) in [
            ("cuda:2", gpus(&[true, true]), "there is no GPU 2: 2 can be seen, the last is cuda:1"),
            ("cuda:1", gpus(&[true, false]), "memory is full"),
            ("cuda", gpus(&[true, false]), "GPU 1 (G1)"),
            ("cuda:0", Err(CudaError::NoDriver), "there is no NVIDIA driver"),
            ("cuda:x", gpus(&[true]), "is not known"),
            ("tpu", gpus(&[true]), "is not known"),
        ] {
            let error = choose(&["cpu", entry], survey).unwrap_err();
            assert!(error.contains(expected) && error.contains(entry), "{error}");
        }
    }
}
