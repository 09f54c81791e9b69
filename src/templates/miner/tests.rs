//! Templates of real messages, bounds, and snapshots.

use proptest::prelude::*;

use super::{snapshot::VERSION, *};

fn miner(max_templates: usize) -> Miner {
    Miner::new(Settings { max_templates, ..Settings::default() })
}

fn sorted(miner: &Miner) -> Snapshot {
    let mut snapshot = miner.snapshot();
    snapshot.templates.sort_by_key(|template| template.id);
    snapshot
}

/// The n-th of many words without a digit, which masks leave alone.
fn word(n: usize) -> String {
    let letters = (0..6).map(|place| char::from(b'a' + (n / 16usize.pow(place) % 16) as u8));
    letters.collect()
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
    assert_eq!(&*template.text, "Accepted password for <*> from <ip> port <num> ssh<num>");
    assert_eq!((template.count, miner.seen(), miner.templates().len()), (3, 4, 2));
    assert_eq!(miner.find("Accepted password for dave from 1.2.3.4 port 5 ssh2").expect("it is there").id, first.id);
    assert!(miner.find("something else").is_none());
}

#[test]
fn what_failed_is_of_another_kind_than_what_went_well() {
    let mut miner = miner(10);
    let line = |status, bytes| format!(r#"10.0.0.{bytes} - - "GET /a/{bytes} HTTP/1.1" {status} {bytes} "-" "curl/8""#);
    let fine = miner.add(&line(200, 17)).id;
    let broken = miner.add(&line(503, 18)).id;
    assert_ne!(fine, broken);
    assert_eq!((miner.add(&line(204, 19)).id, miner.add(&line(500, 20)).id), (fine, broken));
    let snapshot = miner.snapshot();
    let mut again = Miner::restore(Settings::default(), snapshot).expect("it was written by a miner");
    assert_eq!((again.add(&line(201, 21)).id, again.add(&line(599, 22)).id), (fine, broken));
    assert!(again.add(&line(404, 23)).is_new);
}

#[test]
fn a_word_with_a_status_code_never_becomes_a_wildcard() {
    let mut miner = miner(10);
    let line = |word: &str, code| format!("request {word},status={code} took long today");
    let [one, other] = [line("a", 404), line("b", 404)].map(|line| miner.add(&line).id);
    assert_ne!(one, other);
    assert_eq!(miner.add(&line("a", 410)).id, one);
    // What is in the text is nobody's code, but looks like one.
    for word in ["x<client-error>", "y<client-error>", "<client-error>y"] {
        miner.add(&format!("request {word} took long today"));
    }
    let mut again = Miner::restore(Settings::default(), miner.snapshot()).expect("it was written by a miner");
    assert_eq!((again.add(&line("a", 499)).id, again.templates().len()), (one, miner.templates().len()));
    // The leaf has such a word, too, and counts.
    let before = miner.bytes;
    miner.add(&line(&"x".repeat(3000), 404));
    assert!(miner.bytes - before > 6000, "{}", miner.bytes - before);
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
    assert_eq!((d.forgotten, d.is_new), (vec![c], true));
    assert!(miner.get(c).is_none() && miner.get(b).is_some());
    assert_eq!(miner.find("often seen message").expect("it is there").count, 5);
    let again = miner.add("c");
    assert_eq!((again.id, again.is_new), (c, true));
}

#[test]
fn what_a_new_template_costs_does_not_depend_on_how_many_there_are() {
    let looks = |max_templates| {
        let mut miner = miner(max_templates);
        (0..max_templates + 500).for_each(|n| drop(miner.add(&word(n))));
        assert_eq!(miner.templates().len(), max_templates);
        miner.looks
    };
    assert_eq!((looks(100), looks(5_000)), (500 * LOOKED_AT, 500 * LOOKED_AT));
}

#[test]
fn a_leaf_is_bounded_and_forgets_its_own() {
    let mut miner = Miner::new(Settings { max_on_leaf: 4, ..Settings::default() });
    miner.add("alone");
    let varied = |n: usize| format!("at 1 {} {} {}", word(n), word(n + 1000), word(n + 2000));
    let kept = miner.add(&varied(0)).id;
    for n in 1..4 {
        miner.add(&varied(n));
    }
    miner.add(&varied(0));
    for n in 4..40 {
        let matched = miner.add(&varied(n));
        assert_eq!((matched.is_new, matched.forgotten.len()), (true, 1));
    }
    assert_eq!(miner.leaves.values().map(Vec::len).max(), Some(4));
    assert!(miner.get(kept).is_some() && miner.find("alone").is_some());
}

#[test]
fn bytes_are_bounded_and_long_messages_cut() {
    let mut miner = Miner::new(Settings { max_bytes: 20_000, ..Settings::default() });
    for n in 0..50 {
        miner.add(&format!("{} {}", word(n), "long ".repeat(400)));
        miner.add(&word(n));
        assert!(miner.bytes() <= 20_000);
    }
    let bytes: usize = miner.templates().map(Template::bytes).sum();
    assert_eq!(miner.bytes(), bytes);
    let matched = miner.add(&"x".repeat(1 << 20));
    assert_eq!(miner.get(matched.id).expect("it is there").text.len(), MESSAGE_BYTES);
}

#[test]
fn what_was_frequent_long_ago_is_forgotten_at_last() {
    let mut miner = miner(100);
    for _ in 0..1000 {
        miner.add("once the most frequent");
    }
    let mut new = 0;
    while miner.find("once the most frequent").is_some() {
        miner.add(&word(new));
        miner.add("of today");
        new += 1;
        assert!(new < 10_000);
    }
    assert!(new > 100 && miner.find("of today").is_some(), "{new}");
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
    assert_eq!(sorted(&back), sorted(&miner));
    assert_eq!(back.add("x only once"), miner.add("x only once"));
    let few = Settings { max_templates: 1, ..miner.settings };
    assert_eq!(Miner::restore(few, snapshot.clone()).expect("it is there").templates().len(), 1);
    let newer = Snapshot { version: VERSION + 1, ..snapshot.clone() };
    assert!(Miner::restore(miner.settings, newer).expect_err("it is refused").contains("version"));
    let twice = Snapshot { templates: [snapshot.templates.clone(), snapshot.templates.clone()].concat(), ..snapshot };
    assert!(Miner::restore(miner.settings, twice).expect_err("it is refused").contains("twice"));
}

#[test]
fn a_snapshot_of_the_first_version_goes_on_with_lists_masked() {
    let template = |id, text: &str| Template { id: TemplateId(id), text: text.into(), count: 3, last: 7 };
    let templates =
        vec![template(1, "asked to delete blk_-<num> blk_<num> blk_<num>"), template(2, "disk is <*> <*> full")];
    let mut miner =
        Miner::restore(Settings::default(), Snapshot { version: 1, seen: 7, templates }).expect("it is known");
    let (blocks, disk) = (miner.add("asked to delete blk_1 blk_-2"), miner.add("disk is sda x full"));
    assert_eq!((blocks.id, blocks.count, blocks.generalised), (TemplateId(1), 4, false));
    assert_eq!((disk.id, disk.count), (TemplateId(2), 4), "where members differ is no list");
    assert_eq!(miner.snapshot().version, VERSION);
}

#[test]
fn templates_of_objects_whose_keys_were_masked_are_left_out() {
    let template = |id, text: &str| Template { id: TemplateId(id), text: text.into(), count: 3, last: 7 };
    let templates = vec![
        template(1, "{<str>:<str>,<str>:<num>}"),
        template(2, "user <str> is gone"),
        template(3, "app: { <str>: <*>"),
    ];
    let mut miner =
        Miner::restore(Settings::default(), Snapshot { version: 2, seen: 7, templates }).expect("it is known");
    assert_eq!((miner.templates().len(), miner.seen()), (1, 7));
    assert_eq!(miner.add("user 'bob' is gone").id, TemplateId(2));
    assert!(miner.add(r#"{"level":"error","n":7}"#).is_new);
}

#[test]
fn templates_with_pieces_of_addresses_take_their_messages() {
    let template = |id, text: &str| Template { id: TemplateId(id), text: text.into(), count: 3, last: 7 };
    let templates = vec![
        template(1, "Agent[<num>/<num>x<num>a<num>] has no ticket"),
        template(2, "Token{a<num>f<num> Activity} is gone"),
        template(3, "Token{<num>b<num>ed Activity} is gone"),
    ];
    let mut miner =
        Miner::restore(Settings::default(), Snapshot { version: 4, seen: 7, templates }).expect("it is known");
    let tickets = miner.add("Agent[35861/0x7000002a0000] has no ticket");
    assert_eq!((tickets.id, tickets.count, tickets.is_new), (TemplateId(1), 4, false));
    for (object, count) in [("a64f992", 4), ("78af589", 5), ("df0798e", 6)] {
        let gone = miner.add(&format!("Token{{{object} Activity}} is gone"));
        assert_eq!((gone.id, gone.count), (TemplateId(2), count), "all objects share one");
    }
    assert_eq!(miner.snapshot().version, VERSION);
}

#[test]
fn objects_with_other_words_are_other_templates() {
    let mut miner = miner(100);
    let mut id = |message: &str| miner.add(message).id;
    let first =
        id(r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"disk sda of alice failed"}"#);
    for same in [
        r#"{"ts":2.75,"level":"error","pid":123,"host":"10.9.8.7","req":"b-77c","msg":"disk sda of alice failed"}"#,
        r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"disk sda of bob failed"}"#,
        r#"{ "ts": 1.5, "level": "error", "pid": 7, "host": "10.0.0.1", "req": "a8f-1", "msg": "disk sda of alice failed" }"#
            .replace("{ ", "{").replace(" }", "}").as_str(),
    ] {
        assert_eq!(id(same), first, "{same}");
    }
    for other in [
        r#"{"ts":1.5,"level":"info","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"disk sda of alice failed"}"#,
        r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"user sda of alice failed"}"#,
        r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"disk sda in rack empty"}"#,
        r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","note":"disk sda of alice failed"}"#,
        r#"{"ts":1.5,"level":"error","pid":7,"host":"10.0.0.1","req":"a8f-1","msg":"disk sda of alice failed","x":1}"#,
    ] {
        assert_ne!(id(other), first, "{other}");
    }
}

#[test]
fn logfmt_with_another_sentence_is_another_template() {
    let mut miner = miner(100);
    let mut id = |message: &str| miner.add(message).id;
    let first = id(r#"level=info msg="disk 7 failed" user="bob" took=14ms"#);
    assert_eq!(id(r#"level=info msg="disk 12 failed" user="alice" took=2s"#), first);
    for other in [
        r#"level=error msg="disk 7 failed" user="bob" took=14ms"#,
        r#"level=info msg="user 7 failed" user="bob" took=14ms"#,
        r#"level=info msg="disk 7 failed" user="bob" took=14ms x=1"#,
        r#"level=info note="disk 7 failed" user="bob" took=14ms"#,
    ] {
        assert_ne!(id(other), first, "{other}");
    }
}

#[test]
fn one_name_of_two_messages_is_that_of_the_later() {
    let (id, text) = (TemplateId::of("link up"), "a longer text of another leaf".into());
    let templates = vec![Template { id, text, count: 3, last: 7 }];
    let mut miner =
        Miner::restore(Settings::default(), Snapshot { version: VERSION, seen: 7, templates }).expect("it is whole");
    let matched = miner.add("link up");
    assert_eq!((matched.id, matched.is_new, matched.count, matched.forgotten), (id, true, 1, vec![id]));
    assert_eq!((miner.templates().len(), &*miner.get(id).expect("it is there").text), (1, "link up"));
}

proptest! {
    #[test]
    fn objects_keep_it_whole(
        messages in proptest::collection::vec(r#"(get |[ab],status=[24]04 |[ab]<success>[cd] )?[{]("[ab]":("[xy]( [pq]| [0-9]){0,4}"|[0-9]|\[[0-9]?(,"[xy]"){0,2}\]),?){0,4}[}]?"#, 0..200),
        max_templates in 1usize..12,
    ) {
        let mut miner = miner(max_templates);
        for message in &messages {
            miner.add(message);
            prop_assert!(miner.find(message).is_some());
        }
        // Each is on the leaf where it is looked for, however general it is.
        let mut leaf = String::new();
        for (at, slot) in miner.slots.iter().enumerate() {
            let words: Vec<&str> = slot.template.text.split(' ').collect();
            leaf::write(&words, miner.settings.depth, &mut leaf);
            prop_assert!(miner.leaves[&*leaf].contains(&at), "{}", slot.template.text);
        }
        prop_assert_eq!(miner.bytes, miner.templates().map(Template::bytes).sum::<usize>());
    }

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
            prop_assert!(matched.forgotten.iter().all(|id| miner.get(*id).is_none()));
        }
        prop_assert!(miner.templates().len() <= max_templates);
        prop_assert_eq!(miner.seen(), messages.len() as u64);
        let on_leaves: usize = miner.leaves.values().map(Vec::len).sum();
        prop_assert_eq!((on_leaves, miner.by_id.len()), (miner.slots.len(), miner.slots.len()));
        for (id, slot) in &miner.by_id {
            prop_assert_eq!(miner.slots[*slot].template.id, *id);
        }
        let back = Miner::restore(miner.settings, miner.snapshot()).expect("it is there");
        prop_assert_eq!(sorted(&back), sorted(&miner));
        prop_assert_eq!(back.bytes, miner.bytes);
    }
}
