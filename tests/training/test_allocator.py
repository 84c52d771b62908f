"""Memory that is freed stays with the process, and is not cleared by the kernel again and again."""

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys
import numpy as np
from cxrfpn.training.allocator import keep_freed_memory

if "kept" in sys.argv:
    assert keep_freed_memory()
np.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of glibc")
def test_arrays_made_again_and_again_cost_no_page_faults():
    """64 MiB, ten times: mapped again each time, that is thousands of pages or, where they are huge, hundreds."""

    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", PAGE_FAULTS, *arguments]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < faults() / 10
