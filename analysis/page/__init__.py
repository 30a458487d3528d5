"""The page people explore: a run as one JSON block, and charts, tables and a calculator that read it there."""
