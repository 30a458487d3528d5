"""What is told of the machine, against texts that are made up."""

from __future__ import annotations

import pytest

from bench import machine


@pytest.mark.parametrize(
    ("kernels", "flags", "advised"),
    [
        ("Haswell", "avx2 avx512f", True),
        ("SkylakeX", "avx2 avx512f", False),
        ("Haswell", "avx2", False),
        (None, "avx512f", False),
    ],
)
def test_blas_that_does_not_know_the_cpu_is_told(
    monkeypatch: pytest.MonkeyPatch, kernels: str | None, flags: str, advised: bool
) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: f"flags\t\t: fpu sse {flags} x2apic\n")
    pools = [{"internal_api": "openmp", "architecture": None}, {"internal_api": "openblas", "architecture": kernels}]
    advice = machine.held_back(pools)
    assert (advice is not None) == advised
    assert advice is None or ("Haswell" in advice and "OPENBLAS_CORETYPE=SkylakeX" in advice)
