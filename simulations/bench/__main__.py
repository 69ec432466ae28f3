"""One contender in a process of its own: `python -m ... CONTENDER WORKLOAD ROUNDS RESULT_FILE`."""

import sys

if __name__ == "__main__":
    from .simulate import run_contender

    run_contender(*sys.argv[1:])
