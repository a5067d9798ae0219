"""In place of kubernetes-validate, which tests need and a release is installed without.

The kubernetes package imports it wherever it is, which costs each start of a program seconds.
"""

raise ImportError("a program of the test bed is run as it is released, without kubernetes-validate")
