//! Whether a graph packs rows: puts the tokens of all of them one behind the other, so that padding costs nothing.
//!
//! One with oddlog's own attention does, for its operators take tokens so.

use std::path::Path;

use super::{super::custom_op, wire::parts};

/// A larger file is no graph of ours: these keep their weights in a file beside them.
const LARGEST: u64 = 16 << 20;

/// Whether the graph in this file packs rows. `false` for what is no graph.
pub fn packs(graph: &Path) -> bool {
    let is_small = graph.metadata().is_ok_and(|found| found.len() <= LARGEST);
    is_small && std::fs::read(graph).is_ok_and(|model| has_own_attention(&model).unwrap_or_default())
}

/// Field numbers are those of `onnx.proto3`.
fn has_own_attention(model: &[u8]) -> Option<bool> {
    for graph in parts(model, 7)? {
        for node in parts(graph, 1)? {
            let is = |number, text: &str| Some(parts(node, number)?.last().is_some_and(|got| *got == text.as_bytes()));
            if is(7, custom_op::DOMAIN)? && (is(4, "Attention")? || is(4, "DisentangledAttention")?) {
                return Some(true);
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{Precision, compile};

    #[test]
    fn the_shipped_graph_packs_and_its_twins_do_not() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oddlog-minilm");
        let found = ["model.onnx", "model_fp32.onnx", "model_int8.onnx", "model.onnx.data", "config.json", "nothing"];
        assert_eq!(found.map(|name| packs(&dir.join(name))), [true, false, false, false, false, false]);
    }

    #[test]
    fn compiled_graphs_pack_unless_their_operators_are_onnxs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let place = tempfile::tempdir().unwrap();
        use Precision::{Fp16, Fp32, Fp32Portable, Int8, Int8Portable};
        let found = [Fp32, Int8, Fp32Portable, Int8Portable, Fp16].map(|precision| {
            let dir = place.path().join(format!("{precision:?}"));
            compile(&root.join("tests/data/tiny-deberta"), &dir, precision, false, &mut |_| {}).unwrap();
            packs(&dir.join("model.onnx"))
        });
        assert_eq!(found, [true, true, false, false, false]);
    }

    #[test]
    fn it_takes_any_bytes() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/oddlog-minilm");
        let model = std::fs::read(dir.join("model.onnx")).unwrap();
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            has_own_attention(&model[..random.usize(..model.len())]);
            let mut broken = model.clone();
            broken[random.usize(..model.len())] = random.u8(..);
            has_own_attention(&broken);
        }
        // A name of ours in another domain, and another name in ours.
        let node = |name: &str, domain: &str| {
            let field = |tag: u8, text: &str| [&[tag, text.len() as u8], text.as_bytes()].concat();
            let node = [field(4 << 3 | 2, name), field(7 << 3 | 2, domain)].concat();
            let graph = [&[1 << 3 | 2, node.len() as u8], &node[..]].concat();
            [&[7 << 3 | 2, graph.len() as u8], &graph[..]].concat()
        };
        let cases =
            [("Attention", "oddlog"), ("Attention", "com.microsoft"), ("QuantLinear", "oddlog"), ("Attention", "")];
        let found = cases.map(|(name, domain)| has_own_attention(&node(name, domain)));
        assert_eq!(found, [true, false, false, false].map(Some));
    }
}
