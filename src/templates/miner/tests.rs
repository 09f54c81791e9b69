//! Templates of real messages, bounds, and snapshots.

use proptest::prelude::*;

use super::*;

fn miner(max_templates: usize) -> Miner {
    Miner::new(Settings { max_templates, ..Settings::default() })
}

#[test]
fn members_share_a_template_that_becomes_more_general() {
    let mut miner = miner(10);
    let first = miner.add("Accepted password for alice from 10.0.0.7 port 4711 ssh2");
    assert!(first.is_new && !first.generalised);
    let second = miner.add("Accepted password for bob from 10.0.0.8 port 4712 ssh2");
    assert_eq!((second.id, second.is_new, second.count, second.generalised), (first.id, false, 2, true));
    let third = miner.add("Accepted password for carol from 10.0.0.9 port 1 ssh2");
    assert_eq!((third.id, third.generalised), (first.id, false));
    let other = miner.add("Accepted publickey for carol from 10.0.0.9 port 1 ssh2");
    assert_ne!(other.id, first.id);
    let template = miner.get(first.id).expect("it is there");
    assert_eq!(template.text(), "Accepted password for <*> from <ip> port <num> ssh<num>");
    assert_eq!((template.count, miner.seen(), miner.templates().len()), (3, 4, 2));
    assert_eq!(miner.find("Accepted password for dave from 1.2.3.4 port 5 ssh2").expect("it is there").id, first.id);
    assert!(miner.find("something else").is_none());
}

#[test]
fn ids_are_the_same_everywhere() {
    let id = miner(10).add("disk 7 full").id;
    assert_eq!(id, miner(99).add("disk 8 full").id);
    assert_eq!(id.to_string(), "d3c8566fce90703d");
}

#[test]
fn the_least_useful_are_forgotten() {
    let mut miner = miner(3);
    for _ in 0..5 {
        miner.add("often seen message");
    }
    let (b, c) = (miner.add("b").id, miner.add("c").id);
    miner.add("b");
    let d = miner.add("d");
    assert_eq!((d.forgotten, d.is_new), (Some(c), true));
    assert!(miner.get(c).is_none() && miner.get(b).is_some());
    assert_eq!(miner.find("often seen message").expect("it is there").count, 5);
    let again = miner.add("c");
    assert_eq!((again.id, again.is_new), (c, true));
}

#[test]
fn a_snapshot_goes_on_or_is_refused() {
    let mut miner = miner(100);
    for i in 0..50 {
        miner.add(&format!("user u{i} did thing{} with {i}", ["a", "b"][i % 2]));
        miner.add(&format!("{} only once", ["x", "y", "z"][i % 3]));
    }
    let text = serde_json::to_string(&miner.snapshot()).expect("it is there");
    let snapshot: Snapshot = serde_json::from_str(&text).expect("it is there");
    let mut back = Miner::restore(miner.settings, snapshot.clone()).expect("it is there");
    assert_eq!(back.snapshot(), miner.snapshot());
    assert_eq!(back.add("x only once"), miner.add("x only once"));
    let few = Settings { max_templates: 1, ..miner.settings };
    assert_eq!(Miner::restore(few, snapshot.clone()).expect("it is there").templates().len(), 1);
    let newer = Snapshot { version: VERSION + 1, ..snapshot.clone() };
    assert!(Miner::restore(miner.settings, newer).expect_err("it is refused").contains("version"));
    let twice = Snapshot { templates: [snapshot.templates.clone(), snapshot.templates.clone()].concat(), ..snapshot };
    assert!(Miner::restore(miner.settings, twice).expect_err("it is refused").contains("twice"));
}

proptest! {
    #[test]
    fn it_stays_bounded_and_whole(
        messages in proptest::collection::vec("(get|put|user|<|x)( [a-d]| [0-9]{1,3}){0,4}", 0..200),
        max_templates in 1usize..12,
    ) {
        let mut miner = miner(max_templates);
        for message in &messages {
            let matched = miner.add(message);
            prop_assert_eq!(miner.get(matched.id).map(|t| t.count), Some(matched.count));
            // What has just joined is found again.
            prop_assert!(miner.find(message).is_some());
            prop_assert!(matched.forgotten.is_none_or(|id| miner.get(id).is_none()));
        }
        prop_assert!(miner.templates().len() <= max_templates);
        prop_assert_eq!(miner.seen(), messages.len() as u64);
        let on_leaves: usize = miner.leaves.values().map(Vec::len).sum();
        prop_assert_eq!((on_leaves, miner.by_id.len()), (miner.slots.len(), miner.slots.len()));
        for (id, slot) in &miner.by_id {
            prop_assert_eq!(miner.slots[*slot].id, *id);
        }
        let back = Miner::restore(miner.settings, miner.snapshot()).expect("it is there");
        prop_assert_eq!(back.snapshot(), miner.snapshot());
    }
}
