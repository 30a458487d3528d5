"""Beyond the fully connected network: layer kinds in which a weight is used many times for each example.

``layers`` is the network as data; ``problem`` makes seeded problems of it; ``reference`` is the textbook, forward only,
with derivatives by the complex step; ``conformance`` holds implementations to it.  Each library has one file that builds
any architecture; ``workloads`` has one file for each workload.
"""
