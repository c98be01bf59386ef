#!/usr/bin/env bash
# torch 2.13.0: destroy_process_group() stops nothing if torch._dynamo was imported after init_process_group().
#
# Seen: ten functions of torch.distributed.nn.functional have the default group of the moment of import as the default of their
# `group` argument. Before init_process_group() that is None. Imported between init and destroy it is the group itself, for as
# long as the module lives: its threads (gloo_tcp_loop, pt_gloo_runloop) go on until the interpreter is gone, beyond atexit. The
# import is seldom the user's own: torch._dynamo makes it, and building an optimizer imports torch._dynamo, so that nearly every
# training script is affected. A worker thread that is alive while the interpreter ends is a race; importing
# torch.distributed.nn first avoids it.
# Output seen on 2026-12-01, Linux, Python 3.11:
#   torch._dynamo imported never: the group's threads are gone
#   torch._dynamo imported after init: the group's threads are alive
#   torch.distributed.nn imported before init, torch._dynamo after: the group's threads are gone
#   an optimizer built after init: the group's threads are alive
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/run.py" <<'PY'
import os
import sys

import torch
import torch.distributed as dist

early, late = sys.argv[1], sys.argv[2]


def threads():
    return sum("gloo" in open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task"))


if early == "nn":
    import torch.distributed.nn
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(1))
if late == "dynamo":
    import torch._dynamo
elif late == "optimizer":
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
dist.destroy_process_group()
print("alive" if threads() else "gone")
PY
found=$(
    cd "$folder"
    for case in "no no:torch._dynamo imported never" "no dynamo:torch._dynamo imported after init" \
        "nn dynamo:torch.distributed.nn imported before init, torch._dynamo after" "no optimizer:an optimizer built after init"; do
        # shellcheck disable=SC2086
        echo "${case#*:}: the group's threads are $(venv/bin/python -W ignore run.py ${case%%:*} 2> /dev/null)"
    done
)
echo "$found"
[ "$(echo "$found" | sed 's/.*threads are //' | paste -sd' ')" = "gone alive gone alive" ]
