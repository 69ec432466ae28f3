"""`python -m fedtrain` is the command `fedtrain`."""

import sys

from fedtrain.cli import main

sys.exit(main())
