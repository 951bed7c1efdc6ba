"""Kill -9 while pictures are being encoded by a real (tiny) network, then resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

KILLS = 20

# one process pays for the imports; each attempt is a fork of it that dies at a random moment
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch, transformers
from transformers import AutoModel, AutoImageProcessor
from modalmix.encode import batches, encode_images
torch.set_num_threads(1)
batches.SHARD_ROWS = 8
model, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
paths = sorted(folder.glob("*.png"))

def attempt(after):
    child = os.fork()
    if child == 0:
        encode_images(paths, encoder="hf:" + model, batch_size=4)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

AutoModel.from_pretrained(model)  # transformers imports on use: here once, not in every fork
AutoImageProcessor.from_pretrained(model)
os.environ["MODALMIX_CACHE"] = str(folder / "whole")
start = time.monotonic()
assert attempt(None) == 0
whole = time.monotonic() - start
draw = random.Random(0)
os.environ["MODALMIX_CACHE"] = str(folder / "killed")
cache, killed, midway, finished = folder / "killed", 0, 0, 0
for _ in range(15 * kills):  # a kill that comes too late does not count: go on until enough have hit
    if killed >= kills and midway >= kills // 4:
        break
    hit = attempt(draw.uniform(0, whole)) == signal.SIGKILL
    killed += hit
    for path in cache.rglob("[!.]*.npy"):
        assert len(np.load(path)) > 0  # raises for a torn file
    for path in cache.rglob("[!.]*.json"):
        json.loads(path.read_text())
    done = list(cache.rglob("provenance.json"))
    midway += hit and not done and any(cache.rglob("shards/*.npy"))
    if done:  # finished: keep it for the comparison and start over, so that the next kill has something to hit
        (folder / "finished").mkdir(exist_ok=True)
        done[0].parent.rename(folder / "finished" / str(finished))
        finished += 1
        whole *= 0.9  # the estimate was too long
assert attempt(None) == 0
print(json.dumps({"killed": killed, "midway": midway}))
"""


def test_twenty_kills_resume_to_the_same_bits(tiny: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in range(48):
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(tmp_path / f"{name:03}.png")
    (tmp_path / "025.png").write_bytes((tmp_path / "025.png").read_bytes()[:900])
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, str(tiny["vit"]), str(tmp_path), str(KILLS)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["killed"] >= KILLS
    assert told["midway"] >= KILLS // 4  # with finished shards on disk and the matrix not yet written
    (whole,) = (tmp_path / "whole").rglob("features.npy")
    expected = whole.read_bytes()
    results = [*(tmp_path / "killed").rglob("features.npy"), *(tmp_path / "finished").rglob("features.npy")]
    assert results
    assert all(path.read_bytes() == expected for path in results)
    (entry,) = {path.parent for path in (tmp_path / "killed").rglob("provenance.json")}
    assert sorted(os.listdir(entry)) == [".lock", "contents.npy", "features.npy", "provenance.json"]
    matrix = np.load(whole)
    assert np.isnan(matrix).all(axis=1).nonzero()[0].tolist() == [25]
