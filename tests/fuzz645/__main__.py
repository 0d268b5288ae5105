"""`python -m tests.fuzz645`."""

import sys

from tests.fuzz645.run import main

sys.exit(main())
