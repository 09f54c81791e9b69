"""Turns the fine-tuned classifier into the model that ships.

  python export.py --weights DIR --out DIR [--check]

reads `config.json`, `model.safetensors` and `tokenizer.json` of a `BertForSequenceClassification` and writes

  model.onnx        8 bits, one scale for each output channel and each row of activations, in oddlog's own operators
  model_int8.onnx   the same arithmetic in operators that every ONNX Runtime has: for processors that are no x86
  model_fp32.onnx   the same integers, dequantised, with fp32 arithmetic: for GPUs, for x86 processors without AVX2, and what int8
                    is compared with in tests
  model.onnx.data   the tensors of all
  tokenizer.json, tokenizer_config.json, config.json

`--check` then measures what rounding the weights changed (see export_check.py) and leaves `export.json` in `--out`; what the 8 bits
change is for `make test` and for `oddlog eval --beside`, for they run on oddlog's operators. Everything is deterministic. Needs
numpy, onnx, onnxruntime, safetensors, tokenizers and torch (to read bf16).
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
from export_layers import Int8, Twin
from export_packed import build_packed
from export_pairs import Pairs, read_lines

HERE = Path(__file__).parent
CALIBRATION = HERE.parents[2] / "tests" / "data" / "lines.txt"
TABLES = ("embed.word", "embed.position")
FLOAT_LAYERS = ("classifier",)


def quantise(weights):
    """The integers of a model: ({layer: Plan}, {table: (int8, scale per row)})."""
    plans = {name: export_quant.plan(*layer) for name, layer in weights.linears.items() if name not in FLOAT_LAYERS}
    return plans, {name: export_quant.quantise_rows(weights.arrays[name]) for name in TABLES}


def write(weights, source, out):
    """Writes everything into `out`; tokenizer and config come from `source`."""
    plans, tables = quantise(weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
    metadata = {"name": "oddlog-minilm", "weights": "int8 per output channel", "activations": "uint8, one scale per row"}
    twin = "The weights of model.onnx, dequantised, in fp32 arithmetic."
    models = {
        "model.onnx": build_packed(weights, plans, tables, metadata),
        "model_int8.onnx": build(weights, Int8(weights, plans, tables), doc="model.onnx in operators that every ONNX Runtime has."),
        "model_fp32.onnx": build(weights, Twin(weights, plans, tables), doc=twin),
    }
    export_files.write_models(staged, models)
    export_files.write_tokenizer(source, staged)
    export_files.write_config(weights.config, staged)
    export_files.publish(staged, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder of the fine-tuned model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION, help="log lines, one each")
    parser.add_argument("--check", action="store_true", help="measure the result")
    parser.add_argument("--lines", type=Path, nargs="*", default=[], help="more log lines for --check")
    args = parser.parse_args()

    source = export_weights.load(args.weights)
    weights = copy.deepcopy(source)
    seen = export_calibrate.record(weights, Pairs(args.weights), read_lines(args.calibration))
    export_calibrate.fold_values(weights, seen)
    write(weights, args.weights, args.out)
    if args.check:
        export_check.run(args.out, source, read_lines(args.calibration, *args.lines))


if __name__ == "__main__":
    main()
