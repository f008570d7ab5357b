"""How right `gcrs doctor` is: real fine-tuning runs of a few steps, one a process, forecast against measured.

    python tests/benchmarks/forecast_accuracy.py --catalog DIR --dialogues FILE [--base MODEL] [--cpu-time]

Prints one row a run: memory at its peak and tokens a second, forecast, measured, and forecast over measured. On a
machine that others use as well, --cpu-time with one thread lets forecast and run read the process's own clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile

COMMAND = "import sys; from gcrs.cli import main; sys.exit(main())"
OWN_CLOCK = "import time; time.perf_counter = time.monotonic = time.process_time; "
RUNS: dict[str, list[str]] = {
    "lora, 768": ["--set", "batch_tokens=768"],
    "lora, 2048": ["--set", "batch_tokens=2048"],
    "lora, 2048, recompute": ["--set", "batch_tokens=2048", "--set", "recompute=true"],
    "lora, 2048 in parts of 512": ["--set", "batch_tokens=2048", "--set", "micro_tokens=512"],
    "lora, 2048, no dropout": ["--set", "batch_tokens=2048", "--set", "dropout=0"],
    "full, 768": ["--method", "full", "--set", "batch_tokens=768"],
    "full, 2048, recompute": ["--method", "full", "--set", "batch_tokens=2048", "--set", "recompute=true"],
    "instance, 8 sequences": ["--set", "layout=instance", "--set", "batch_sequences=8"],
}


def main() -> int:
    """Run, print, return 0 when every run ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--dialogues", required=True)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--steps", default="4")
    parser.add_argument("--only", choices=RUNS, action="append")
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    failed = 0
    print("run\tGB forecast\tGB measured\tratio\ttok/s forecast\ttok/s measured\tratio", flush=True)
    for name, more in RUNS.items():
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as place:
            clock = OWN_CLOCK if arguments.cpu_time else ""
            command = [sys.executable, "-c", clock + COMMAND, "finetune"]
            command += ["--catalog", arguments.catalog, "--dialogues", arguments.dialogues, "--base", arguments.base]
            command += ["--from", "none", "--steps", arguments.steps, "--out", f"{place}/out", "--json"]
            command += ["--set", f"threads={arguments.threads}", "--set", "made=0", "--set", "item_share=0"]
            done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        if done.returncode:
            failed += 1
            print(f"{name}\tfailed: {done.stderr.strip()[-300:]}", flush=True)
            continue
        report = json.loads(done.stdout)
        told, seen = report["forecast"], report["measured"]
        row = [name]
        for key in ("memory_gb", "tokens_per_second"):
            row += [f"{told[key]:.2f}", f"{seen[key]:.2f}", f"{told[key] / seen[key]:.2f}"]
        print("\t".join(row), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
