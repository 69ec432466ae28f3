#!/usr/bin/env bash
# Makes the example report anew: simulations/examples/make.sh DATA, the folder of the four hospitals.
# Needed after a change of the config's keys, or of what a report says; takes a minute.
set -euo pipefail
examples="$(cd "$(dirname "$0")" && pwd)"
data="$(cd "$1" && pwd)"
run="$examples/heart_disease"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$data" heart_disease # a run directory says where its data lay
sed '/^local_epochs/d' "$examples/../heart_disease.toml" >scenario.toml
fedtrain simulate scenario.toml --quiet --out run \
  --set privacy.unit=record --set privacy.target_epsilon=4 --set privacy.metrics=uncovered \
  --set training.sampling=poisson --set training.sample_rate=0.2 --set training.local_steps=4 \
  --set training.expected_batch_size=32 --set federation.rounds=15 --set federation.evaluate_every=0
fedtrain audit run --quick --method conformance --method sentinels --method black-box \
  --method single-step --method masking --method label-leakage >/dev/null
python - <<'PYTHON'
"""Leave out what differs from machine to machine and is not in the report, and seal what is left."""
import json
from pathlib import Path

from fedtrain.seal import seal_run

run = Path("run")
for picture in run.glob("*.png"):
    picture.unlink()
environment = json.loads((run / "environment.json").read_text())
for key in ("platform", "processor", "cores", "git_commit"):
    environment[key] = None
(run / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
seal_run(run)
PYTHON
fedtrain report run
fedtrain verify run
rm -rf "$run"
mkdir "$run"
cp -R run/. "$run"
rm -f "$run/checkpoint/lock"
