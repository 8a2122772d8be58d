"""A residual network of four scalar blocks, f_k[h] = w_k·h: its 16 paths add up to its output.

Run it with `python examples/toy.py`; nothing but Python is needed. `unbraid figure toy` shows the same.
"""

from itertools import product

weights = (2.0, -0.5, 3.0, 1.0)
x = 1.0

# Equation 11.4: block after block.
y = x
for w in weights:
    y = y + w * y

# Equation 11.5, multiplied out: path after path. At every block a path takes the branch or the skip.
total = 0.0
for path in product((False, True), repeat=len(weights)):
    value = x
    for w, enters in zip(weights, path, strict=True):
        value = w * value if enters else value
    total += value
    way = " -> ".join(["x", *(f"f{k}" for k, enters in enumerate(path, start=1) if enters), "y"])
    print(f"{way:<28}{value:>7g}")

print(f"{'sum of the 16 paths':<28}{total:>7g}")
print(f"{'block after block':<28}{y:>7g}")
