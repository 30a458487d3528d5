"""Tests run side by side (pytest-xdist); what they start does not."""

import os

# pytest-benchmark measures nothing in a process that finds these, but runs that a test starts are runs of their own
for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
    del os.environ[name]
