"""From files to frames, laws, verdicts, figures and the report.  Imports neither implementations nor the harness."""
