"""A Hub on loopback and fresh processes that use it."""

from support.hub_fixtures import client, hub, owner, server

__all__ = ["client", "hub", "owner", "server"]
