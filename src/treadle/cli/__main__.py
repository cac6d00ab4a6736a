"""`python -m treadle.cli`: the same as the command `treadle`."""

import sys

from treadle.cli.main import main

sys.exit(main())
