"""``python -m inference_workers.native``: build the kernels."""

import sys

from inference_workers.native.build import main

sys.exit(main())
