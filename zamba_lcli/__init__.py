"""Fine-tune, test and run video classifiers on camera-trap clips with the LightningCLI."""

import os

__version__ = "0.1.0"

# How often a thread of a layer looks whether the others are done before it leaves its core to who needs it. GNU OpenMP's 300000
# takes from the processes that read clips what they need to go on: measured on two cores, batches of SlowFast took longer in
# predict with it, 9 % in float32 and 18 % in bfloat16, though those processes had a lower priority then. Read when torch is
# loaded, so stated before.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
