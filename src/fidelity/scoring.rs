//! Scores of many logs by one device, without the engine: in batches, or in other company to see whether it matters.

use crate::{
    classify::{Head, Task, label_scores},
    device::{Device, DeviceError},
    model::{EncodedLog, InputTensors, Model},
};

/// In whose company each log is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Logs of near length together, within so many padded tokens.
    Near(usize),
    /// Each log alone.
    Alone,
    /// So many logs of any length together, padded to the longest of them.
    Mixed(usize),
}

/// A model on a device, with what is asked of each log.
pub struct Scorer<'a> {
    model: &'a Model,
    task: &'a Task,
    device: &'a mut dyn Device,
}

impl<'a> Scorer<'a> {
    /// Scores `task` with `model` on `device`, which must be the model's.
    pub fn new(model: &'a Model, task: &'a Task, device: &'a mut dyn Device) -> Self {
        Self { model, task, device }
    }

    /// The anomaly score of each log, in their order. `done` is told how many are.
    ///
    /// # Errors
    /// [`DeviceError`] if a run fails.
    pub fn anomaly_scores(
        &mut self,
        logs: &[String],
        company: Company,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, DeviceError> {
        let head = Head::from(&self.model.spec);
        let logits = self.logits(logs, company, done)?;
        let score = |logits: &Vec<f32>| label_scores(logits, head, self.task.multi_label)[self.task.anomaly];
        Ok(logits.iter().map(score).collect())
    }

    /// The logits `[labels, classes]` of each log, in their order.
    ///
    /// # Errors
    /// [`DeviceError`] if a run fails.
    pub fn logits(
        &mut self,
        logs: &[String],
        company: Company,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, DeviceError> {
        let encoded: Vec<EncodedLog> =
            logs.iter().map(|log| self.model.tokenizer.encode_log(log, self.task.lengths.clone())).collect();
        let values = self.task.rows() * self.model.spec.classes;
        let mut results = vec![Vec::new(); logs.len()];
        let (mut inputs, mut logits, mut ready) = (InputTensors::default(), Vec::new(), 0);
        for group in self.groups(&encoded, company) {
            let members = || group.iter().map(|index| &encoded[*index].ids);
            let longest = members().map(|ids| self.task.longest_pair(&self.model.tokenizer, ids.len())).max();
            inputs.reset(group.len() * self.task.rows(), longest.unwrap_or(1), self.model.spec.pad_id);
            for ids in members() {
                self.task.hypotheses.iter().for_each(|h| inputs.push(&self.model.tokenizer, ids, h));
            }
            inputs.finish();
            self.device.run(&inputs, &mut logits)?;
            if logits.len() != group.len() * values {
                return Err(DeviceError::Failed(format!("{} logits for {} rows", logits.len(), inputs.rows)));
            }
            for (index, logits) in group.iter().zip(logits.chunks_exact(values)) {
                results[*index] = logits.to_vec();
            }
            ready += group.len();
            done(ready);
        }
        Ok(results)
    }

    /// Indices of the logs that run together.
    fn groups(&self, encoded: &[EncodedLog], company: Company) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..encoded.len()).collect();
        let budget = match company {
            Company::Alone => return order.into_iter().map(|index| vec![index]).collect(),
            Company::Mixed(logs) => return order.chunks(logs.max(1)).map(<[_]>::to_vec).collect(),
            Company::Near(budget) => budget,
        };
        let padded = |index: &usize| {
            let tokens = encoded[*index].ids.len();
            InputTensors::padded_len(self.task.longest_pair(&self.model.tokenizer, tokens))
        };
        order.sort_by_key(padded);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for index in order {
            match groups.last_mut() {
                // The newcomer is the longest so far.
                Some(group) if (group.len() + 1) * self.task.rows() * padded(&index) <= budget => group.push(index),
                _ => groups.push(vec![index]),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Scoring, device::FakeDevice};

    #[test]
    fn company_changes_neither_order_nor_scores() {
        let model =
            Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oddlog-minilm"), 128).expect("it ships");
        let task = Task::configured(&Scoring::default(), &model.tokenizer).unwrap();
        let logs: Vec<String> = (0..40).map(|i| "disk failure ".repeat(1 + i * 7 % 13) + &i.to_string()).collect();
        let mut device = FakeDevice::new("fake", model.spec.classes);
        let mut scorer = Scorer::new(&model, &task, &mut device);
        let mut told = Vec::new();
        let alone = scorer.logits(&logs, Company::Alone, &mut |done| told.push(done)).unwrap();
        assert_eq!(told, (1..=40).collect::<Vec<_>>());
        assert!(alone.iter().all(|logits| logits.len() == 4) && alone[0] != alone[1]);
        for company in [Company::Near(512), Company::Near(1), Company::Mixed(7), Company::Mixed(0)] {
            assert_eq!(scorer.logits(&logs, company, &mut |_| ()).unwrap(), alone, "{company:?}");
        }
        let scores = scorer.anomaly_scores(&logs, Company::Mixed(3), &mut |_| ()).unwrap();
        assert!(scores.iter().all(|p| (0.0..=1.0).contains(p)));
        assert!(scorer.logits(&[], Company::Near(9), &mut |_| ()).unwrap().is_empty());
    }
}
