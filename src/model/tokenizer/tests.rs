//! Every way of encoding beside the library's, on real lines, odd vocabularies and any text.

use super::*;

#[test]
fn a_head_ends_at_white_space() {
    assert_eq!(head("abc def ghi", 4), ("abc def", false));
    assert_eq!(head("abc def", 5), ("abc def", true));
    assert_eq!(head("abc", 3), ("abc", true));
    assert_eq!(head("", 3), ("", true));
    assert_eq!(head("äöü x", 4), ("äöü", false));
    assert_eq!(head("abcdefghi jkl", 4), ("abcd", false));
    assert_eq!(head("äöüäöüäöü", 3), ("ä", false));
}

/// Tokenizers that go a way of their own, each beside one that leaves all to the library: the shipped one, the tests'
/// BERT, and Unigram as DeBERTa-v3 has it.
fn both() -> Vec<(PairTokenizer, PairTokenizer)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pair = |dir: &str| {
        let path = root.join(dir).join("tokenizer.json");
        let own = PairTokenizer::read(&path, 512).unwrap();
        match &own.encoder {
            Encoder::Library { ascii, .. } => assert!(ascii.is_some(), "{dir}"),
            Encoder::Unigram(_) => assert!(dir.ends_with("deberta"), "{dir}"),
        }
        (own, library(&std::fs::read_to_string(&path).unwrap()))
    };
    ["models/oddlog-minilm", "tests/data/tiny-bert3", "tests/data/tiny-deberta"].map(pair).into()
}

fn library(text: &str) -> PairTokenizer {
    let vocabulary = serde_json::from_str(text).unwrap();
    let Encoder::Library { tokenizer, .. } = Encoder::of_the_library(text, &vocabulary).unwrap() else {
        unreachable!("it is the library's")
    };
    PairTokenizer::new(Encoder::Library { tokenizer, ascii: None }, &vocabulary, 512).unwrap()
}

#[test]
fn every_way_gives_the_ids_of_the_library() {
    let lines = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lines.txt")).unwrap();
    for (own, library) in both() {
        assert_eq!(own.template, library.template);
        for line in lines.split('\n') {
            assert_eq!(own.encode(line), library.encode(line), "{line:?}");
        }
    }
}

#[test]
fn what_only_the_library_knows_is_left_to_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-deberta/tokenizer.json");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(Unigram::read(&json.to_string()).is_some());
    let changes: [fn(&mut serde_json::Value); 6] = [
        |json| json["model"]["byte_fallback"] = true.into(),
        |json| json["model"]["type"] = "BPE".into(),
        |json| json["model"]["unk_id"] = serde_json::Value::Null,
        |json| json["model"]["unk_id"] = 1000.into(),
        |json| json["model"]["vocab"][7][0] = "".into(),
        |json| json["added_tokens"][4]["special"] = false.into(),
    ];
    for change in changes {
        let mut json = json.clone();
        change(&mut json);
        assert!(Unigram::read(&json.to_string()).is_none(), "{change:?}");
    }
}

/// A vocabulary with ties between ways, pieces that stand there twice, unknown characters that are pieces together,
/// positive scores, and scores that two parsers may round to different sides.
#[test]
fn odd_vocabularies_give_the_ids_of_the_library() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-deberta/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..40 {
        let mut text = || (0..random.usize(1..5)).map(|_| ['a', 'b', 'ä', '\0', '▁'][random.usize(0..5)]).collect();
        let pieces: Vec<String> = (0..60).map(|_| text()).collect();
        let texts: Vec<String> = (0..300).map(|_| (0..8).map(|_| text()).collect::<String>() + "y z").collect();
        let score = |random: &mut fastrand::Rng| match round % 4 {
            0 => -1.0,
            1 => f64::from(random.i32(-3..3)),
            2 => f64::from(-random.f32() * 20.0),
            _ => -random.f64() * 1e-3,
        };
        let vocab: Vec<_> = pieces.iter().map(|piece| serde_json::json!([piece, score(&mut random)])).collect();
        json["model"]["vocab"] = vocab.into();
        json["model"]["unk_id"] = random.u32(0..60).into();
        let file = json.to_string();
        let (own, library) = (Unigram::read(&file).unwrap(), library(&file));
        for text in texts {
            let mut ids = Vec::new();
            own.encode_into(&text, &mut ids).unwrap();
            assert_eq!(ids, library.encoder.encode(&text).unwrap(), "{text:?} with {pieces:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn every_way_gives_the_ids_of_the_library_for_any_text(
        text in "([ -~]|[0-9a-fA-F:.-]|[A-Z]{1,3}[a-z]{0,4}|[\\x00-\\x7f]|[a-f0-9]{8}|(\\[SEP\\])|▁| {2}|2026-11-0[1-9]T12:34:5[0-9]|.){0,40}"
    ) {
        thread_local!(static BOTH: Vec<(PairTokenizer, PairTokenizer)> = both());
        BOTH.with(|both| {
            for (own, library) in both {
                assert_eq!(own.encode(&text), library.encode(&text), "{text:?}");
            }
        });
    }
}
