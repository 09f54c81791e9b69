#!/usr/bin/env python3
"""Put ONNX Runtime's shared library into a folder: fetched with pip, checked against a pinned sha256, once.

Usage: fetch_onnxruntime.py FOLDER        (exit code 0: FOLDER/libonnxruntime.so is there and right)
"""
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.31.1"
# Machine -> sha256 of libonnxruntime.so inside the wheel (the same for every Python version).
SHA256 = {
    "x86_64": "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    "aarch64": "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
}


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def fail(text):
    sys.exit(f"onnxruntime: {text}")


def main():
    if len(sys.argv) != 2:
        fail("usage: fetch_onnxruntime.py FOLDER")
    folder = sys.argv[1]
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in SHA256:
        fail(
            f"no pinned build for {platform.system()} on {machine}. Get libonnxruntime {VERSION} for it and set "
            "ORT_DYLIB_PATH to the file"
        )
    target = os.path.join(folder, "libonnxruntime.so")
    if os.path.exists(target):
        if digest(target) == SHA256[machine]:
            return
        print(f"onnxruntime: {target} is not the pinned {VERSION}; fetching it again", file=sys.stderr)
    print(f"onnxruntime: fetching {VERSION} for {machine} (about 23 MiB)", file=sys.stderr)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "3.12", "--platform", f"manylinux_2_28_{machine}"]
        command += ["--dest", work, f"onnxruntime=={VERSION}"]
        if subprocess.run(command, check=False).returncode:
            fail("pip could not download the wheel (see above). Is there a network, and `python3 -m pip`?")
        wheel = next(os.path.join(work, name) for name in os.listdir(work) if name.endswith(".whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = f"onnxruntime/capi/libonnxruntime.so.{VERSION}"
            fresh = archive.extract(member, work)
        found = digest(fresh)
        if found != SHA256[machine]:
            fail(f"the library's sha256 is {found}, not the pinned {SHA256[machine]}; it was not installed")
        os.chmod(fresh, 0o644)
        os.replace(fresh, target)
    print(f"onnxruntime: {target}", file=sys.stderr)


if __name__ == "__main__":
    main()
