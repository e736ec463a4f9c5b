"""`python -m optpo`: the command line, for launchers such as torchrun that start a module."""

import sys

from optpo.cli.main import main

sys.exit(main())
