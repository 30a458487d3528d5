"""A sweep measured by several machines at once, through a Dask scheduler: each (implementation, pass) is a job of one worker."""
