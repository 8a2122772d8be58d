from zoo.result import Result
def page(results, brief=False):
    return "\n".join(f"{r.name:28} {r.verdict:8} {r.counts} {r.expected} tr{r.trunks} {r.error:.1e} s{r.silent} {r.tracer} {r.seconds:.1f}s {r.reason[:300]!r}" for r in results)
