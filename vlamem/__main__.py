"""`python -m vlamem`: the same as the command `vlamem`."""

import sys

from vlamem.scripts.main import main

sys.exit(main())
