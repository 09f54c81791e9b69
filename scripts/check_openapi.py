"""Holds a running server to its own /openapi.json: schemathesis sends what the document allows, and what it does not.

    python3 scripts/check_openapi.py target/release/oddlog VENV

The server has a fake device, so that no model is needed. VENV is made and filled on first use.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

PACKAGE = "schemathesis==4.32.5"
# That `anomaly_label` must be one of `labels` cannot be said in OpenAPI, so allowed requests may be refused.
OPTIONS = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing"]
# It cannot make lines of JSON or text; the fuzz target `lines` does.
OPTIONS += ["--exclude-path", "/api/v1/analyze/stream"]
OPTIONS += ["--max-examples", "100", "--seed", "1", "--no-color"]


def schemathesis(venv):
    """The program, installed if need be."""
    program = venv / "bin" / "schemathesis"
    stamp = venv / (PACKAGE + ".installed")
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        stamp.touch()
    return program


def address_of(server):
    """Where the server listens, from its log."""
    for line in server.stderr:
        address = json.loads(line)["fields"].get("address")
        if address:
            return address
    sys.exit("the server ended before it listened")


def main():
    oddlog, venv = sys.argv[1], Path(sys.argv[2])
    program = schemathesis(venv)
    environment = {**os.environ, "ODDLOG_LOG__FORMAT": "json", "ODDLOG_LOG__LEVEL": "info"}
    command = [oddlog, "serve", "--listen", "127.0.0.1:0", "--device", "fake"]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://{address_of(server)}/openapi.json"
        result = subprocess.run([program, "run", url, *OPTIONS], cwd=venv)
    finally:
        server.terminate()
        # Reads on, so that a full pipe does not hold it up.
        server.communicate(timeout=60)
    if server.returncode != 0:
        sys.exit(f"the server ended with {server.returncode}")
    sys.exit(result.returncode)


main()
