#!/bin/sh
# Builds the libraries of this folder into FOLDER: the driver's alone, or all that ONNX Runtime's CUDA provider loads.
# Usage: build.sh FOLDER driver|all
set -e
here=$(dirname "$0")
folder=$1

# NAME SOURCE [FLAG...]: its symbols have the version that importers ask for, which is its name.
library() {
    name=$1 source=$2
    shift 2
    printf '%s { global: *; };\n' "$name" >"$folder/$name.map"
    cc -shared -fPIC -O1 -Wall -Wextra -Werror -pthread -o "$folder/$name" "$here/$source" \
        "-Wl,-soname,$name,--version-script,$folder/$name.map" "$@"
    rm "$folder/$name.map"
}

library libcuda.so.1 driver.c
[ "$2" = all ] || exit 0
library libcudart.so.13 runtime.c
for name in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do
    library $name blas.c "-L$folder" -l:libcudart.so.13
done
for name in libcudnn.so.9 libcudnn_graph.so.9 libcudnn_ops.so.9; do
    library $name cudnn.c
done
