"""Offline work: talk into dialogues, dialogues into adapters. Never imported by a bot."""
