"""`python -m treadle`: the same as the command `treadle`; what `torchrun -m treadle train ...` starts."""

import sys

from treadle.cli.main import main

sys.exit(main())
