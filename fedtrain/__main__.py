"""`python -m fedtrain` is the command `fedtrain`."""

import sys

from fedtrain.cli import main

code = main()
# Where an interrupt fell into code compiled from text (a module under import that made a dataclass,
# say), the interpreter remembers it as unhandled although it was handled, and dies of the signal in
# place of the exit code. Compiling another text makes it forget.
exec("")  # noqa: S102
sys.exit(code)
