#!/usr/bin/env python3
"""Runs the unit tests of src/kernel, the room with `unsafe`, under AddressSanitizer and under valgrind.

Usage: sanitize_kernel.py FOLDER

The kernel needs nothing of the crate around it, so it is built as a crate of its own in FOLDER: no other code is instrumented,
and ONNX Runtime is not there. AddressSanitizer is in the stable toolchain, behind RUSTC_BOOTSTRAP=1; it sees every path of this
processor. valgrind, which also sees what is read before it is written, knows AVX2 but no AVX-512: there the paths are those
that it emulates. Without valgrind on the PATH that part is left out, and said so.
"""
import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# Millions of values and no pointer: hours under valgrind.
ARITHMETIC = ("gelu_is_accurate",)
OTHER_EXIT = 99


def make_crate(folder):
    """The kernel as a crate, with the dependencies and versions that the real one has."""
    wanted = {}
    for name in ("thiserror", "proptest"):
        found = re.search(rf"^{name} = .*$", (ROOT / "Cargo.toml").read_text(), re.M)
        wanted[name] = found.group(0) if found else sys.exit(f"Cargo.toml does not name {name}")
    (folder / "src").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "Cargo.lock", folder / "Cargo.lock")
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "kernel"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
        f'[dependencies]\n{wanted["thiserror"]}\n\n[dev-dependencies]\n{wanted["proptest"]}\n\n'
        # Overflows and the standard library's own checks of unsafe calls stay on.
        "[profile.dev]\nopt-level = 1\ndebug = 1\ndebug-assertions = true\noverflow-checks = true\n"
    )
    (folder / "src/lib.rs").write_text(f'#[path = "{ROOT / "src/kernel/mod.rs"}"]\npub mod kernel;\n')


def run(title, command, **options):
    print(f"--- {title}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, **options).returncode
    print(f"--- {title}: {'clean' if code == 0 else f'exit code {code}'}, {time.monotonic() - started:.0f} s", flush=True)
    return code


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    if (platform.machine(), platform.system()) != ("x86_64", "Linux"):
        sys.exit(f"this is for {TARGET}: elsewhere the kernel has its plain path only")
    cargo = os.environ.get("CARGO", "cargo")
    make_crate(folder)
    common = {key: value for key, value in os.environ.items() if key != "RUSTFLAGS"}
    sanitized = common | {
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": "-Zsanitizer=address",
        "CARGO_TARGET_DIR": str(folder / "address"),
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1",
    }
    test = [cargo, "test", "--lib", "--target", TARGET]
    failed = run("AddressSanitizer", test, cwd=folder, env=sanitized)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("--- valgrind is not installed: left out")
    else:
        plain = common | {
            "CARGO_TARGET_DIR": str(folder / "plain"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER": f"{valgrind} -q --error-exitcode={OTHER_EXIT} --leak-check=no",
        }
        skipped = [word for name in ARITHMETIC for word in ("--skip", name)]
        failed = run("valgrind", [*test, "--", "--test-threads", "2", *skipped], cwd=folder, env=plain) or failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
