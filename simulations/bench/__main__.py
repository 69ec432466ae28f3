"""One contender in a process of its own: `python -m ... CONTENDER WORKLOAD ROUNDS RESULT_FILE`.

With `dp` in front, one row of `bench dp`: `python -m ... dp MODEL BATCH ALLOCATOR SECONDS FILE`.
"""

import sys

if __name__ == "__main__":
    if sys.argv[1] == "dp":
        from .dp import run_row

        run_row(*sys.argv[2:])
    else:
        from .simulate import run_contender

        run_contender(*sys.argv[1:])
