"""HiPPO-LegS and its normal plus low-rank form (Gu et al., S4, arXiv 2111.00396, theorem 1 and appendix C.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def legs_matrices(size: int) -> tuple[Tensor, Tensor]:
    """``A (N, N)`` and ``B (N,)`` of HiPPO-LegS (float64, CPU): the state holds Legendre coefficients."""
    order = torch.arange(size, dtype=torch.float64, device='cpu')
    root = (2 * order + 1).sqrt()
    matrix = -(torch.outer(root, root).tril(-1) + torch.diag(order + 1))
    return matrix, root


def legs_nplr(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS as ``A = V (diag(w) - p p^*) V^*`` and ``B = V b``, half of every conjugate pair.

    The eigenproblem is solved in float64, where it is that of a Hermitian matrix: in float32 the eigenvalues of the
    authors' code are off by up to 4e-4 for N = 64. Eigenvectors have no phase of their own; here it is chosen so that
    ``p`` is real and positive, hence ``b = sqrt(2) p`` too, on any machine.

    Returns:
        ``w``, ``p`` and ``b``, each ``(N / 2,)`` complex128, imaginary parts of ``w`` positive and descending (the
        authors' order, which is LAPACK's, is about the same; it has no meaning).

    Raises:
        ValueError: ``size`` is odd or below 2.
    """
    if size < 2 or size % 2:
        raise ValueError(f'd_state is {size}; wanted an even number from 2, half of it conjugate pairs')
    matrix, inputs = legs_matrices(size)
    low_rank = inputs / 2**0.5  # sqrt(n + 1/2)
    skew = matrix + torch.outer(low_rank, low_rank) + torch.diag(torch.full_like(low_rank, 0.5))
    imaginary, vectors = torch.linalg.eigh(-1j * skew)  # ascending; the second half is positive
    imaginary, vectors = imaginary[size // 2 :].flip(0), vectors[:, size // 2 :].flip(1)
    p = vectors.mH @ low_rank.to(vectors.dtype)
    phase = p / p.abs()
    b = vectors.mH @ inputs.to(vectors.dtype)
    return torch.complex(torch.full_like(imaginary, -0.5), imaginary), p / phase, b / phase
