//! Long work on the processor, kept from blocking the threads that serve connections. It does not know what the work is.

use std::thread::available_parallelism;

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    task::block_in_place,
};

/// Does long work on the caller's thread, which gives its other tasks to another one meanwhile; no more at once than there
/// are processors.
#[derive(Debug)]
pub(super) struct Aside {
    places: Semaphore,
}

impl Default for Aside {
    fn default() -> Self {
        Self { places: Semaphore::new(available_parallelism().map_or(1, Into::into)) }
    }
}

impl Aside {
    /// Does `work`. On a runtime with one thread, where nobody could take over, it is done at once.
    pub async fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        if Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
            return work();
        }
        let _place = self.places.acquire().await.expect("it is never closed");
        block_in_place(work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn other_tasks_of_the_only_thread_go_on_meanwhile() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (aside, (say, heard)) = (Arc::new(Aside::default()), bounded::<u32>(1));
        let answer = runtime.block_on(async {
            let long = tokio::spawn(async move {
                let other = tokio::spawn(async move { say.send(7).unwrap() });
                // It ends only when the other task, on the same thread, has run.
                let heard = aside.run(|| heard.recv()).await;
                other.await.unwrap();
                heard
            });
            long.await.unwrap()
        });
        assert_eq!(answer, Ok(7));
    }

    #[test]
    fn there_are_no_more_at_once_than_processors() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let aside = Arc::new(Aside { places: Semaphore::new(1) });
        let (release, (hold, began)) = (bounded::<()>(0), bounded::<u32>(2));
        let begin = |number: u32| {
            let (aside, hold, gate) = (aside.clone(), hold.clone(), release.1.clone());
            runtime.spawn(async move {
                aside
                    .run(|| {
                        hold.send(number).unwrap();
                        gate.recv()
                    })
                    .await
            })
        };
        let first = begin(1);
        assert_eq!(began.recv(), Ok(1));
        let second = begin(2);
        // The thread serves others while both the work and the wait for a place go on.
        runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
        assert!(began.is_empty());
        drop(release.0);
        assert!(runtime.block_on(async { (first.await.unwrap(), second.await.unwrap()) }).0.is_err());
        assert_eq!(began.recv(), Ok(2));
    }

    #[tokio::test]
    async fn on_a_runtime_with_one_thread_it_is_done_at_once() {
        assert_eq!(Aside::default().run(|| 7).await, 7);
    }
}
