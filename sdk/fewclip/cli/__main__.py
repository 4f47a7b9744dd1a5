"""`python -m fewclip.cli`."""

import sys

from fewclip.cli.main import main

sys.exit(main())
