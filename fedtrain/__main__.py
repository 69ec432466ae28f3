"""`python -m fedtrain` is the command `fedtrain`."""

import sys

from fedtrain.cli import main

code = main()
# Where an interrupt fell into code that was compiled from text (a module that was being imported and
# made a dataclass, say), the interpreter remembers it as unhandled although it was handled, and dies
# of the signal in place of the exit code. Evaluating a text again forgets that.
exec("")  # noqa: S102
sys.exit(code)
