"""The message bus between the collector and the warehouse: a port with two adapters.

`port` says what a bus does and how its topics are laid out; `local` is an embedded queue for one machine, `pubsub` is
Google Pub/Sub.
"""
