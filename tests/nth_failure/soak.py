"""`python -m tests.nth_failure.soak`: the n-th serial and broker failures, for every n.

A line for each kind of failure: how far n went until a run passed untouched, and what was found.
Exit code 0 only when nothing was.
"""

import argparse
import logging
import sys
import time

from tests.nth_failure.loops import KINDS, loop_over


def main() -> int:
    """Run the loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=[*KINDS], help="only these")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    findings = 0
    for kind in args.kind or KINDS:
        begun = time.monotonic()
        loop = loop_over(kind, every=True)
        print(f"{loop.line()}; {time.monotonic() - begun:.0f} s", flush=True)
        for text in loop.findings:
            print(f"  {text}", flush=True)
        findings += len(loop.findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
