"""What work on a log of a given size will take, from measured unit costs, and when one machine is too small.

costs       unit costs: what is kept of a measurement, how it is read and written
logs        sessions and click logs to measure with
measuring   measures every step, in processes of its own
estimate    the arithmetic
"""
