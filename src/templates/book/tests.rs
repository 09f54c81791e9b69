//! Sightings, novelty, rates, pages, and snapshots that go on.

use proptest::prelude::*;

use super::*;
use crate::templates::mask_start;

fn observe(book: &mut Book, message: &str, now_ms: u64) -> Sighting {
    let mut masked = String::new();
    mask_start(message, &mut masked);
    book.observe(&masked, now_ms)
}

fn book(max_templates: usize) -> Book {
    Book::new(Settings { max_templates, ..Settings::default() }, 1000)
}

fn names(book: &Book, listing: Listing) -> Vec<String> {
    listing.page(|| book, 100_000).entries.iter().map(|entry| entry.template.to_string()).collect()
}

#[test]
fn sightings_are_counted_in_order() {
    let mut book = book(10);
    let first = observe(&mut book, "disk 7 full", 1000);
    assert_eq!((&*first.template, first.first_seen, first.count, first.novelty), ("disk <num> full", true, 1, 1.0));
    let second = observe(&mut book, "disk 8 full", 2000);
    assert_eq!((second.id, second.first_seen, second.count, second.novelty), (first.id, false, 2, 0.0));
    assert_eq!(observe(&mut book, "link up", 3000).novelty, 1.0);
    let third = observe(&mut book, "disk 9 full", 4000);
    assert!((third.novelty - (1.0 - 3f64.ln() / 4f64.ln())).abs() < 1e-12, "{}", third.novelty);
    let general = observe(&mut book, "disk 9 empty", 5000);
    assert_eq!((general.id, &*general.template), (first.id, "disk <num> <*>"));
    assert_eq!((book.seen(), book.len(), book.forgotten()), (5, 2, 0));
}

#[test]
fn novelty_at_points_that_its_text_names() {
    assert!((novelty(999, 1_000_000) - 0.5).abs() < 1e-6 && (novelty(10, 1_000_000) - 0.83).abs() < 0.005);
    assert_eq!((novelty(0, 0), novelty(0, 9), novelty(9, 9), novelty(10, 9)), (1.0, 1.0, 0.0, 0.0));
}

#[test]
fn a_rate_follows_what_comes_and_fades() {
    let mut book = book(10);
    let hour = 3_600_000;
    for at in (0..hour).step_by(500) {
        observe(&mut book, "tick", at);
    }
    let rate = |now| Listing { limit: 1, ..Listing::default() }.page(|| &book, now).entries[0].rate;
    assert!((rate(hour) - 2.0).abs() < 0.01, "two a second: {}", rate(hour));
    assert!((rate(hour + 600_000) - 2.0 / std::f64::consts::E).abs() < 0.01);
    assert!(rate(0) <= rate(hour) + 0.01, "a clock that is set back changes nothing");
}

#[test]
fn pages_are_sorted_and_bounded() {
    let mut book = book(10);
    for (message, times) in [("alpha", 3), ("beta", 1), ("gamma", 2)] {
        for i in 0..times {
            let sighting = observe(&mut book, message, 1000 * i + message.len() as u64);
            book.note_verdict(sighting.id, message == "gamma", times as f32 / 10.0);
        }
    }
    let all = Listing { limit: 9, ..Listing::default() };
    assert_eq!(names(&book, all), ["alpha", "gamma", "beta"]);
    assert_eq!(names(&book, Listing { order: Order::Ascending, ..all }), ["beta", "gamma", "alpha"]);
    assert_eq!(names(&book, Listing { offset: 1, limit: 1, ..all }), ["gamma"]);
    assert_eq!(names(&book, Listing { offset: 3, ..all }).len() + names(&book, Listing { limit: 0, ..all }).len(), 0);
    assert_eq!(names(&book, Listing { sort: SortBy::Anomalies, limit: 1, ..all }), ["gamma"]);
    assert_eq!(names(&book, Listing { sort: SortBy::Score, limit: 1, ..all }), ["alpha"]);
    assert_eq!(names(&book, Listing { sort: SortBy::FirstSeen, limit: 1, order: Order::Ascending, ..all }), ["beta"]);
    assert_eq!(names(&book, Listing { sort: SortBy::LastSeen, limit: 1, ..all }), ["alpha"]);
    let entry = &all.page(|| &book, 0).entries[1];
    assert_eq!((entry.tally.anomalies, entry.tally.normals, entry.tally.score), (2, 0, Some(0.2)));
    let page = Listing { offset: usize::MAX, limit: usize::MAX, ..all }.page(|| &book, 0);
    assert_eq!((page.entries.len(), page.total, page.seen, page.since_ms), (0, 3, 6, 1000));
}

#[test]
fn a_page_is_what_lies_there_of_the_whole_order() {
    let mut book = book(1000);
    let word = |n: usize| n.to_string().bytes().map(|b| char::from(b'a' + b - b'0')).collect::<String>();
    for n in 0..200 {
        (0..n % 7).for_each(|_| drop(observe(&mut book, &word(n), n as u64)));
    }
    let all = Listing { limit: 1000, ..Listing::default() };
    let whole = names(&book, all);
    assert!(whole.len() > 150);
    for (offset, limit) in [(0, 1), (0, 20), (13, 20), (whole.len() - 3, 2), (whole.len() - 3, 20), (whole.len(), 9)] {
        let expected: Vec<_> = whole.iter().skip(offset).take(limit).cloned().collect();
        assert_eq!(names(&book, Listing { offset, limit, ..all }), expected, "{offset} {limit}");
    }
}

#[test]
fn what_is_forgotten_while_a_page_is_chosen_is_left_out() {
    let mut before = book(2);
    ["a", "b"].into_iter().for_each(|word| drop(observe(&mut before, word, 0)));
    let mut after = Book::restore(Settings { max_templates: 2, ..Settings::default() }, before.snapshot()).unwrap();
    observe(&mut after, "b", 1);
    observe(&mut after, "c", 2);
    let looks = std::cell::Cell::new(0);
    let look = || {
        looks.set(looks.get() + 1);
        if looks.get() == 1 { &before } else { &after }
    };
    let page = Listing { limit: 9, ..Listing::default() }.page(look, 3);
    let names: Vec<&str> = page.entries.iter().map(|entry| &*entry.template).collect();
    assert_eq!((names, page.total, page.forgotten, looks.get()), (vec!["b"], 2, 1, 2));
}

#[test]
fn what_is_forgotten_leaves_no_record_and_takes_no_verdict() {
    let mut book = book(2);
    let first = observe(&mut book, "a", 0);
    observe(&mut book, "b", 1);
    observe(&mut book, "c", 2);
    assert_eq!((book.len(), book.forgotten()), (2, 1));
    let changes = book.changes();
    book.note_verdict(first.id, true, 0.9);
    assert_eq!(book.changes(), changes);
    assert!(observe(&mut book, "a", 3).first_seen);
}

#[test]
fn a_snapshot_without_a_record_or_with_a_broken_one_is_refused() {
    let mut book = book(9);
    observe(&mut book, "a", 5);
    let good = book.snapshot();
    let lacking = BookSnapshot { records: Vec::new(), ..good.clone() };
    assert!(Book::restore(Settings::default(), lacking).unwrap_err().contains("no record"));
    let mut broken = good;
    broken.records[0].1.rate = f64::NAN;
    assert!(Book::restore(Settings::default(), broken).unwrap_err().contains("broken"));
}

#[test]
fn trust_goes_on_for_the_judge_that_it_is_of() {
    let mut book = book(9);
    let id = observe(&mut book, "disk 7 full", 1000).id;
    assert_eq!(book.judged_by("one model", 2), 0);
    let before = book.changes();
    book.learn(id, &[0.9, 0.1], 0.9, 5000);
    book.learn(TemplateId(1), &[0.9, 0.1], 0.9, 5000);
    assert_eq!((book.trusts().count(), book.changes()), (1, before + 1), "what is not known learns nothing");
    let text = serde_json::to_string(&book.snapshot()).expect("it is there");
    let back =
        || Book::restore(Settings::default(), serde_json::from_str(&text).expect("it is there")).expect("it is there");
    assert_eq!(back().trust(id), book.trust(id));
    assert!(book.trust(id).is_some());
    for (judge, labels, kept) in [("one model", 2, 1), ("another model", 2, 0), ("one model", 3, 0)] {
        let mut back = back();
        assert_eq!(back.judged_by(judge, labels), kept, "{judge}, {labels} labels");
        assert_eq!((back.trusts().count(), back.len()), (kept, 1), "the template itself stays");
    }
}

#[test]
fn what_is_forgotten_is_trusted_no_more() {
    let mut book = book(1);
    let id = observe(&mut book, "disk 7 full", 0).id;
    book.learn(id, &[0.9, 0.1], 0.9, 0);
    observe(&mut book, "link up", 1);
    assert_eq!((book.trust(id), book.trusts().count()), (None, 0));
}

proptest! {
    #[test]
    fn novelty_is_bounded_and_monotone(known in 0u64..1 << 40, more in 0u64..1 << 40, seen in 0u64..1 << 41) {
        let one = novelty(known, seen);
        prop_assert!((0.0..=1.0).contains(&one));
        prop_assert!(novelty(known + more, seen) <= one, "it falls with the count");
        prop_assert!(novelty(known, seen + more) >= one, "it rises with the share that others have");
        prop_assert_eq!(one == 1.0, known == 0);
    }

    #[test]
    fn a_book_that_is_restored_goes_on_the_same(
        messages in proptest::collection::vec("(get|put|user|<|x)( [a-d]| [0-9]{1,3}){0,4}", 1..100),
        cut in 0usize..100,
    ) {
        let (before, after) = messages.split_at(cut.min(messages.len()));
        let mut one = book(1000);
        for (at, message) in before.iter().enumerate() {
            let id = observe(&mut one, message, at as u64).id;
            one.note_verdict(id, at % 3 == 0, 0.5);
        }
        let text = serde_json::to_string(&one.snapshot()).expect("it is there");
        let mut two = Book::restore(Settings::default(), serde_json::from_str(&text).expect("it is there")).expect("it is there");
        for (at, message) in after.iter().enumerate() {
            prop_assert_eq!(observe(&mut one, message, 500 + at as u64), observe(&mut two, message, 500 + at as u64));
        }
        let all = Listing { limit: 1000, ..Listing::default() };
        let (mut one, mut two) = (all.page(|| &one, 9000), all.page(|| &two, 9000));
        for (a, b) in one.entries.iter_mut().zip(&mut two.entries) {
            prop_assert!((a.rate - b.rate).abs() < 1e-12, "JSON keeps all but the last bit");
            b.rate = a.rate;
        }
        prop_assert_eq!(one, two);
    }
}
