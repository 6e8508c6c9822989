"""The demonstration: two brokers, a stock client, a TLS server, and what happened at each step.

It uses the product the way an operator does, through configuration files and commands; nothing
in it is a short cut that the product does not have.
"""

from broker.demo.processes import DemoFailed
from broker.demo.run import run_demo

__all__ = ["DemoFailed", "run_demo"]
