"""Twenty real agents with four kinds of servers, short certificates, and kill -9 at random.

``make soak`` runs it unattended, for half an hour unless ``MINUTES=`` says otherwise, and writes
docs/soak.md.
"""
