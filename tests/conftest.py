"""For all tests: one torch thread per process, since pytest runs a process per core.

Two processes with two threads each would wait for one another in spin locks and take many times as long. A test that is
about threads sets their number itself.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
