"""What is measured and how: cells, profiles, workers, the recorder.  Writes pytest-benchmark JSON, reads none."""
