"""`python -m imds_proxy` is the command `imds-proxy`."""

import sys

from imds_proxy.cli import main

sys.exit(main())
