"""torchrun as it is, but that it says in a file which ranks failed, and goes when its launcher goes.

``python -m bench.torchrun FILE …`` is ``torchrun …``; FILE gets ``{rank: exit code}`` as JSON if ranks failed, negative for a
signal.  torchrun itself prints that as a table for people.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backprop_files import write_json
from bench.parent import die_with_parent


def main(failures: Path, arguments: list[str]) -> int:
    """0, or 1 if a rank failed."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        write_json(failures, {str(rank): failure.exitcode for rank, failure in error.failures.items()})
        return 1
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
