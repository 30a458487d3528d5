"""The mathematics of backpropagation, once per library.  Nothing here knows of timing."""
