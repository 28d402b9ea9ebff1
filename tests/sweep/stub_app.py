"""A stand-in for ``finetune.train``: the same door to the sweep, jobs that end in every way, no torch.

``act`` is how a job ends; each start leaves a line in ``starts.txt`` of its directory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="stub_conf", config_name="stub")
def main(cfg: DictConfig) -> None:
    """End as ``act`` says."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    with (directory / "starts.txt").open("a") as file:
        file.write(f"{os.environ.get('OMP_NUM_THREADS')} {sorted(os.sched_getaffinity(0))}\n")
    (directory / "result.json").write_text(json.dumps({"status": "running"}))
    print("the job's own output")
    if cfg.act == "raise":
        raise RuntimeError("boom")
    if cfg.act == "exit":
        sys.exit(0)
    if cfg.act == "kill":
        os.kill(os.getpid(), 9)
    time.sleep(cfg.sleep_s)
    value = 1.0 - (cfg.x - 0.3) ** 2
    monitor = {"name": "val/accuracy", "value": value, "epoch": 1}
    (directory / "result.json").write_text(json.dumps({"status": "completed", "monitor": monitor}))


if __name__ == "__main__":
    main()
