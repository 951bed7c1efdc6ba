"""Freed memory is used again. In a process of its own: the setting is for the whole process."""

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import sys

import numpy as np

from modalmix.nn.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for step in range(40):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first, second, third = (np.ones(2_000_000, dtype=np.float32) for _ in range(3))
    del first, second, third
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_steps_after_the_first_pay_no_page_faults() -> None:
    assert faults("keep") < faults("default") / 10
