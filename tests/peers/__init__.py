"""Real ACME servers, clients and a name server, started for one test and gone after it.

``install`` puts the programs on the machine; ``installation`` knows where they
are; each other module launches one of them.  This file imports nothing, because
``install`` runs under a bare system Python that has no third-party library.
"""
