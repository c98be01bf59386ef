"""Every study, one after another: python -m experiments [NAME ...] [options of the studies]."""

import subprocess
import sys

from experiments.studies import STUDIES


def main(arguments: list[str]) -> int:
    """Run the studies that are named, or all, with the same options; goes on after a failure. 0 if all succeeded."""
    known = [study.name for study in STUDIES]
    named = [a for a in arguments if a in known]
    rest = [a for a in arguments if a not in known]
    failed = []
    for name in named or known:
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"experiments.{name}", *rest]).returncode:
            failed.append(name)
    if failed:
        print(f"expected every study to finish, found failures: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
