"""Turns the fine-tuned classifier into the model that ships.

  python export.py --weights DIR --out DIR [--check]

reads `config.json`, `model.safetensors` and `tokenizer.json` of a `BertForSequenceClassification` and writes

  model.onnx        int8: 7-bit weights per output channel, 8-bit activations with constant calibrated scales
  model_fp32.onnx   the same integers, dequantised, with fp32 arithmetic: what int8 is compared with in tests
  model.onnx.data   the tensors of both
  tokenizer.json, tokenizer_config.json, config.json

`--check` then measures what was written against the true weights (see export_check.py) and leaves `export.json` in `--out`.
Everything is deterministic. Needs numpy, onnx, onnxruntime, safetensors, tokenizers and torch (to read bf16).
"""

import argparse
import copy
import tempfile
from pathlib import Path

import export_calibrate
import export_check
import export_files
import export_quant
import export_weights
from export_graph import build
from export_layers import Float, Int8, Twin
from export_pairs import Pairs, read_lines

HERE = Path(__file__).parent
CALIBRATION = HERE.parents[2] / "tests" / "data" / "lines.txt"
# A u8 x s8 product pair must fit int16: ONNX Runtime's kernels for CPUs without VNNI saturate there. 255 * 63 * 2 = 32130 does.
WEIGHT_BITS = 7
TABLES = ("embed.word", "embed.position")


def quantise(weights, encoder, lines, bits=WEIGHT_BITS, balanced=lambda layer: True):
    """The integers of a fine-tuned model: ({layer: Plan}, {table: (int8, scale per row)}) and the rescaled weights."""
    seen = export_calibrate.record(weights, encoder, lines)
    weights = copy.deepcopy(weights)
    export_calibrate.fold_values(weights, seen)
    plans = export_calibrate.plans(weights, seen, bits, balanced)
    tables = {name: export_quant.quantise_rows(weights.arrays[name]) for name in TABLES}
    return weights, plans, tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder of the fine-tuned model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION, help="log lines, one each")
    parser.add_argument("--check", action="store_true", help="measure the result")
    parser.add_argument("--lines", type=Path, nargs="*", default=[], help="more log lines for --check")
    args = parser.parse_args()

    source = export_weights.load(args.weights)
    weights, plans, tables = quantise(source, Pairs(args.weights), read_lines(args.calibration))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".export-", dir=args.out.parent))
    metadata = {"name": "oddlog-minilm", "weights": f"int{WEIGHT_BITS} per output channel", "activations": "uint8, constant scales"}
    twin = "The weights of model.onnx, dequantised, in fp32 arithmetic."
    models = {
        "model.onnx": build(weights, Int8(weights, plans, tables), metadata=metadata),
        "model_fp32.onnx": build(weights, Twin(weights, plans, tables), doc=twin),
    }
    export_files.write_models(staged, models)
    export_files.write_tokenizer(args.weights, staged)
    export_files.write_config(source.config, staged)
    export_files.publish(staged, args.out)
    for layer, plan in plans.items():
        print(f"{layer:14} output error {plan.error:.5f} of its variance{'' if plan.balance is None else ', balanced'}")
    if args.check:
        export_check.run(args.out, source, read_lines(args.calibration, *args.lines))


if __name__ == "__main__":
    main()
