"""What the bot is: values, policy, memory, the generator's port.

Knows no platform and never imports `bots` or `training`.
"""
