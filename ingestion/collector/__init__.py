"""The collector: a small service that turns the closed bars of the kline streams into messages of the bus.

    connections -> shards -> core (sequence per series) -> spool -> publisher -> bus
                              ^ catch_up (REST)

Every thread but the core's only brings or takes: connections and catch-up put events into one bounded queue, the core
alone decides which bars are next, the spool makes them durable together with how far each series has got, and the
publisher takes them from there to the bus. A kill at any instant loses nothing; it may publish a bar twice.
"""
