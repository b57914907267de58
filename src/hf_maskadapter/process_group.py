"""Leaving the group of processes that run one command together."""

from __future__ import annotations


def leave_process_group() -> None:
    """End this process's part in PyTorch's process group, if it is in one.

    A process that exits inside a group may abort after its work is done, since the group's threads still run.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


__all__ = ["leave_process_group"]
