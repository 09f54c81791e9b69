//! What single requests and batch calls are told, by pool, rate and deadline.

use futures_util::FutureExt;

use super::*;
use crate::{batching::Load, model::EncodedLog};

mod house;

const FAR: Duration = Duration::from_secs(60);

fn small() -> Admission {
    Admission::new(
        &Batching { max_queue_tokens: 640, max_bulk_tokens: 128, bulk_share: 0.2, ..Batching::default() },
        128,
        (16, 128),
    )
}

async fn single(admission: &Admission, tokens: usize, now: Instant, ms: u64) -> Result<OwnedSemaphorePermit, String> {
    let permit = admission.admit(Class::Interactive, tokens, now, now + Duration::from_millis(ms)).await;
    permit.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_full_pool_refuses_singles_with_a_computed_retry() {
    let (pool, now) = (small(), Instant::now());
    let held = pool.admit(Class::Interactive, 640, now, now + FAR).await.unwrap();
    let unknown = RequestError::Overloaded { retry_after: Duration::from_secs(1) };
    assert_eq!(pool.check(Class::Interactive, now, now + FAR), Err(unknown));
    pool.rate().set(160.0, now);
    let four_seconds = RequestError::Overloaded { retry_after: Duration::from_secs(4) };
    assert_eq!(pool.check(Class::Interactive, now, now + FAR), Err(four_seconds));
    let bulk = pool.admit(Class::Bulk, 128, now, now + FAR).await.unwrap();
    let late = pool.admit(Class::Bulk, 16, now, now).await.unwrap_err();
    assert_eq!(late, RequestError::DeadlineExceeded);
    drop((held, bulk));
    assert!(pool.admit(Class::Interactive, 640, now, now + FAR).await.is_ok());
}

#[tokio::test]
async fn what_would_be_late_is_refused_at_once() {
    let (pool, now) = (small(), Instant::now());
    let _first = single(&pool, 160, now, 1).await.expect("nothing else is there");
    let _second = single(&pool, 160, now, 1).await.expect("no rate is known");
    pool.rate().set(320.0, now);
    // 320 tokens and its own 32 take 1.1 s, and .8 of the time must do.
    assert!(single(&pool, 32, now, 1380).await.is_ok());
    let refused = single(&pool, 32, now, 1370).await.unwrap_err();
    assert_eq!(refused, "The server cannot answer in time. Retry after 1 s, or allow more time.");
    // Beyond 1.5 s it is too late for anyone; with four fifths of the devices even sooner.
    let third = single(&pool, 128, now, 60_000).await.unwrap();
    assert!(single(&pool, 48, now, 60_000).await.is_err());
    drop(third);
    assert!(single(&pool, 128, now, 60_000).await.is_ok());
    let _bulk = pool.admit(Class::Bulk, 16, now, now + FAR).await.unwrap();
    assert!(single(&pool, 128, now, 60_000).await.is_err());
    let passed = pool.admit(Class::Interactive, 16, now, now).await.unwrap_err();
    assert_eq!(passed, RequestError::DeadlineExceeded);
}

#[tokio::test]
async fn an_old_rate_does_not_refuse_what_is_little() {
    let (pool, now) = (small(), Instant::now());
    pool.rate().set(1.0, now);
    let _first = single(&pool, 64, now, 1000).await.expect("nothing else is there");
    assert!(single(&pool, 16, now, 1000).await.is_err());
    let later = now + OLD + Duration::from_millis(1);
    // Two devices with a batch of 64 and one after it.
    let _second = single(&pool, 192, later, 1000).await.unwrap();
    assert!(single(&pool, 16, later, 1000).await.is_err());
}

#[tokio::test]
async fn a_batch_call_that_cannot_begin_in_time_is_refused() {
    let (pool, now) = (small(), Instant::now());
    pool.rate().set(32.0, now);
    let held = pool.admit(Class::Bulk, 128, now, now + FAR).await.unwrap();
    let mut waits = Box::pin(pool.admit(Class::Bulk, 64, now, now + FAR));
    assert!(waits.as_mut().now_or_never().is_none());
    let check = |ms| pool.check(Class::Bulk, now, now + Duration::from_millis(ms));
    assert_eq!(check(2000), Ok(()));
    assert_eq!(check(1999), Err(RequestError::TooLate { retry_after: Duration::from_secs(1) }));
    drop(held);
    assert!(waits.await.is_ok());
    assert_eq!(check(1), Ok(()));
}

#[tokio::test]
async fn who_left_before_its_run_counts_no_longer_and_what_runs_does() {
    let (pool, now) = (small(), Instant::now());
    pool.rate().set(320.0, now);
    let first = single(&pool, 640, now, 60_000).await.expect("nothing else is there");
    let log = || EncodedLog { ids: vec![1], truncated: false };
    let (waits, answer) = Load { log: log(), hypotheses: Vec::new().into(), permit: first }.wait();
    // It would take 2 s, and the pool is full.
    assert!(single(&pool, 16, now, 60_000).await.is_err());
    drop(answer);
    let second = single(&pool, 640, now, 60_000).await.expect("nothing waits but an empty ticket");
    assert!(waits.is_abandoned());
    let (ticket, answer) = Load { log: log(), hypotheses: Vec::new().into(), permit: second }.wait();
    let job = ticket.begin().expect("somebody waits for it");
    drop(answer);
    assert_eq!(pool.check(Class::Interactive, now, now + FAR), Err(pool.full()));
    assert!(!pool.is_idle());
    drop(job);
    assert!(pool.is_idle());
}

#[tokio::test]
async fn there_are_no_more_jobs_than_the_fewest_tokens_allow() {
    let (pool, now) = (small(), Instant::now());
    let mut held = Vec::new();
    while let Ok(permit) = single(&pool, 1, now, 60_000).await {
        held.push(permit);
    }
    for _ in 0..8 {
        held.push(pool.admit(Class::Bulk, 15, now, now + FAR).await.unwrap());
    }
    assert_eq!((held.len(), pool.max_jobs(), pool.bulk.used()), (48, 48, 128));
}
