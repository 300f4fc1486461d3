"""The tools layer (paper, section II): four service managers, each with a control link of its own to the layers above.

====================  ================  ===============================================================================
manager               module            what it manages
====================  ================  ===============================================================================
communication         communication     rules of switches, label paths, packets out of ports
location              location          which terminal is behind a port, where every object is
sensing               sensing           counters of the network's links; what data nodes collect comes in as reports
compute and process   process           who is alive, queue, load and memory; stop work on an object
====================  ================  ===============================================================================

A *control link* is, inside a control centre, one of the interfaces in ``links``: whatever is not in it, no other layer
may call (``tests/unit/controller/tools/test_links.py`` holds the code to that).  Between control centre and terminals
it is a family of messages in AI packets (``packets.messages``), of its own for each manager: *communication*
``LaunchAgain``, ``HandOver``, ``Release``; *location* ``OrderRequest``, ``AnnounceObject``, ``Returned``; *sensing*
``Register``, ``Report``, ``Pull``, ``Leave`` (packet type TELEMETRY); *process* ``Order``, ``Halt``, ``VisitDone``.
"""
