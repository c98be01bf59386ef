"""What the C library does with freed memory, seen in the pages that are mapped anew: counted, since times are noisy."""

import json
import os
import platform
import subprocess
import sys

import pytest

ROUNDS = """
import json, resource, torch
from landscape.malloc import keep_freed, return_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensors = [torch.ones(2 << 20) for _ in range(6)]  # 8 MiB each, all freed at once
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = []
for change in {changes}:
    change()
    faults()  # the first round writes to every page for the first time
    found.append(faults())
print(json.dumps(found))
"""
PAGES = 10 * 6 * (8 << 20) // os.sysconf("SC_PAGE_SIZE")  # that all rounds write to
FEW, MANY = PAGES // 50, PAGES // 5


def faults(*changes: str, **environment: str) -> list[int]:
    """Pages mapped anew in ten rounds, after each change; in a process of its own."""
    program = ROUNDS.format(changes=f"({', '.join(changes)},)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")


def test_freed_memory_is_kept():
    assert max(faults("keep_freed")) < FEW


def test_freed_memory_is_returned_where_memory_is_tight_and_stays_so():
    assert min(faults("return_freed", "keep_freed")) > MANY


def test_the_environment_has_the_last_word():
    assert min(faults("keep_freed", MALLOC_TRIM_THRESHOLD_="131072")) > MANY
