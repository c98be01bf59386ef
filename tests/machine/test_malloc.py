"""What the C library does with freed memory, seen in the pages that are mapped anew: counted, since times are noisy."""

import json
import os
import platform
import subprocess
import sys

import pytest

ROUNDS = """
import ctypes, json, resource, torch
from landscape.machine.malloc import keep_freed, return_freed

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size

sizes = iter(range(8 << 20, 32 << 20, 1 << 18))  # each larger than all before, so that glibc's own threshold is too low for it

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        size = next(sizes)
        tensors = [torch.ones(size, dtype=torch.uint8) for _ in range(6)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = []
for change in {changes}:
    change()
    faults()  # the first round writes to every page for the first time
    found.append(faults())
print(json.dumps(found))
"""
PAGES = 10 * 6 * (8 << 20) // os.sysconf("SC_PAGE_SIZE")  # that ten rounds write to at least
FEW, MANY = PAGES // 8, PAGES // 2


def faults(*changes: str, **environment: str) -> list[int]:
    """Pages mapped anew in ten rounds, after each change; in a process of its own."""
    program = ROUNDS.format(changes=f"({', '.join(changes)},)")
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=own | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")


def test_freed_memory_is_kept():
    assert min(faults("int")) > MANY, "by itself glibc gives it back"
    assert max(faults("keep_freed")) < FEW
    assert max(faults("keep_freed", MALLOC_ARENA_MAX="2")) < FEW, "which says nothing of what is kept"


def test_freed_memory_is_returned_where_memory_is_tight_and_stays_so():
    assert min(faults("return_freed", "keep_freed")) > MANY


@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_the_user_told_the_library_holds(environment):
    assert min(faults("keep_freed", **environment)) > MANY
