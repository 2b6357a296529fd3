"""Messaging patterns: `patterns.sync` and `patterns.aio` export the same roles, `patterns.wire.errors` what they raise."""
