"""Equations 11.5 and 11.6 as text and LaTeX, parsed back and compared with sympy's own expansion."""

import re
from itertools import pairwise

import pytest
import sympy
from torch import nn

from networks import Chain, Does, Residual, lively, mlp, normal
from unbraid.form import chain, trace

X = normal(3, 6)


@pytest.fixture(params=range(1, 7), scope="module", ids="K={}".format)
def written(request):
    count = request.param
    return count, trace(lively(Chain(*(Residual(mlp(6)) for _ in range(count)))), X).equation()


def functions(count, make):
    return {f"f{k}": make(f"f{k}") for k in range(1, count + 1)}


def recursion(count, named):
    """h_k = h_{k−1} + f_k(h_{k−1}), Equation 11.4."""
    h = sympy.Symbol("x")
    for k in range(1, count + 1):
        h = h + named[f"f{k}"](h)
    return h


def linear(name):
    """f_k as a matrix that does not commute with the others."""
    matrix = sympy.Symbol(name, commutative=False)
    return lambda h: matrix * h


def from_latex(text):
    text = re.sub(r"\\mathbf\{f\}_\{(\d+)\}\\left", r"f\1", text)
    return text.replace(r"\right", "").replace(r"\mathbf{x}", "x").replace(r"\mathbf{y}", "y")


@pytest.mark.parametrize("notation", ["text", "latex"])
@pytest.mark.parametrize("make", [sympy.Function, linear], ids=["any function", "linear"])
def test_the_output_unravelled(written, notation, make):
    """Equation 11.5 against the recursion 11.4, with functions of which nothing is known, and with matrices."""
    count, equation = written
    text = equation.text if notation == "text" else from_latex(equation.latex)
    left, right = text.split(" = ")
    assert left == "y"
    named = functions(count, make)
    parsed = eval(right.replace("[", "(").replace("]", ")"), {"x": sympy.Symbol("x"), **named})
    assert sympy.expand(parsed - recursion(count, named)) == 0


def test_a_linear_network_has_one_term_a_path(written):
    """Figure 11.4b: 2^K paths."""
    count, equation = written
    right = equation.text.split(" = ")[1].replace("[", "(").replace("]", ")")
    parsed = eval(right, {"x": sympy.Symbol("x"), **functions(count, linear)})
    assert len(sympy.Add.make_args(sympy.expand(parsed))) == 2**count


def derivative_terms(equation, notation):
    """The right-hand side as a sympy expression; the partial derivative of f_b by f_a is the symbol d_a_b."""
    if notation == "text":
        left, right = equation.derivative.split(" = ")
        assert left == "∂y/∂f1"
        right = re.sub(r"∂f(\d)/∂f(\d)", r"d_\2_\1", right).replace("·", "*")
    else:
        left, right = equation.derivative_latex.split(" = ")
        assert left == r"\frac{\partial \mathbf{y}}{\partial \mathbf{f}_{1}}"
        partial = r"\\frac\{\\partial \\mathbf\{f\}_\{(\d)\}\}\{\\partial \\mathbf\{f\}_\{(\d)\}\}"
        right = re.sub(partial, r"d_\2_\1", right).replace(r"\mathbf{I}", "I")
        right = re.sub(r"(d_\d_\d) (?=d)", r"\1*", right)
    symbols = {name: sympy.Symbol(name) for name in re.findall(r"d_\d_\d", right)}
    return eval(right, {"I": sympy.Integer(1), **symbols}), symbols


@pytest.mark.parametrize("notation", ["text", "latex"])
def test_the_derivative(written, notation):
    """Equation 11.6 against its recursion: what reaches f_k is what reached any earlier f_j, times ∂f_k/∂f_j."""
    count, equation = written
    found, _ = derivative_terms(equation, notation)
    reached = [sympy.Integer(1)]
    for k in range(2, count + 1):
        reached.append(sum(reached[j - 1] * sympy.Symbol(f"d_{j}_{k}") for j in range(1, k)))
    assert sympy.expand(found - sum(reached)) == 0


def test_the_derivative_is_a_product_multiplied_out(written):
    """Where f_k is linear, ∂f_k/∂f_j = d_k for all j, and the sum of 2^(K−1) terms is ∏ (1 + d_k), k = 2..K."""
    count, equation = written
    found, symbols = derivative_terms(equation, "text")
    slopes = sympy.symbols([f"d{k}" for k in range(2, count + 1)])
    flat = sympy.expand(found.subs({symbol: slopes[int(name[-1]) - 2] for name, symbol in symbols.items()}))
    assert flat == sympy.expand(sympy.prod([1 + slope for slope in slopes]))
    assert len(sympy.Add.make_args(flat)) == 2 ** (count - 1)


def test_every_path_of_the_derivative_is_written_once(written):
    count, equation = written
    right = equation.derivative.split(" = ")[1]
    terms = re.sub(r"[()]", "", right).split(" + ")
    assert len(terms) == len(set(terms)) == 2 ** (count - 1)
    for term in terms[1:]:
        steps = [tuple(map(int, re.findall(r"\d", factor))) for factor in term.split("·")]
        assert steps[0][1] == 1
        assert all(b[1] == a[0] for a, b in pairwise(steps))


def test_the_book_itself():
    """Prince (2023), Equations 11.5 and 11.6, K = 4."""
    equation = trace(lively(Chain(*(Residual(mlp(6)) for _ in range(4)))), X).equation()
    assert equation.text == (
        "y = x + f1[x] + f2[x + f1[x]] + f3[x + f1[x] + f2[x + f1[x]]]"
        " + f4[x + f1[x] + f2[x + f1[x]] + f3[x + f1[x] + f2[x + f1[x]]]]"
    )
    assert equation.derivative == (
        "∂y/∂f1 = I + ∂f2/∂f1 + (∂f3/∂f1 + ∂f2/∂f1·∂f3/∂f2)"
        " + (∂f4/∂f1 + ∂f2/∂f1·∂f4/∂f2 + ∂f3/∂f1·∂f4/∂f3 + ∂f2/∂f1·∂f3/∂f2·∂f4/∂f3)"
    )
    assert str(equation) == f"{equation.text}\n{equation.derivative}"
    assert equation._repr_latex_().startswith("$$")


def test_the_general_form():
    """h_k = P_k(S_k h_{k−1} + Σ_j f_{k,j}(h_{k−1})), factors that are the identity left out."""
    relu = Does(lambda net, x: (x + net.f(x)).relu(), f=mlp(6))
    projected = Does(lambda net, x: net.p(x) + net.f(x), p=nn.Linear(6, 4), f=mlp(6, 6, 4))
    side = Does(lambda net, x: x + net.a(x) + net.b(x), a=mlp(4), b=mlp(4))
    equation = trace(lively(Chain(relu, projected, side)), X).equation()
    assert equation.text == "h1 = P1[x + f1[x]]\nh2 = S2·h1 + f2[h1]\ny = h2 + f3,0[h2] + f3,1[h2]"
    assert equation.derivative == "∂y/∂f1 = (I + J3)·(S2 + J2)·P1"


def test_a_plain_network():
    """Equation 11.1, and 11.3: one product."""
    model = lively(Chain(mlp(6), mlp(6), mlp(6), nn.Linear(6, 2)))
    equation = chain(model, X, layers=["blocks.0", "blocks.1", "blocks.2"]).equation()
    assert equation.text == "h1 = f1[x]\nh2 = f2[h1]\ny = f3[h2]"
    assert equation.derivative == "∂y/∂f1 = (J3)·(J2)"


def test_seven_blocks_are_not_written_out():
    equation = trace(lively(Chain(*(Residual(mlp(2)) for _ in range(7)))), normal(3, 2)).equation()
    lines = equation.text.splitlines()
    assert lines[0] == "h1 = x + f1[x]"
    assert lines[6] == "y = h6 + f7[h6]"
    assert equation.derivative == f"∂y/∂f1 = {'·'.join(f'(I + J{k})' for k in range(7, 1, -1))}"
