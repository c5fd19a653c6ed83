"""Plans of unbalanced and balanced optimal transport between two point sets with masses.

The problem (Liero, Mielke and Savaré, Inventiones 2018; Chizat et al., J. Funct. Anal. 2018), for masses a_i at x_i and b_j at y_j:

    minimise  sum P_ij C_ij + KL(P 1 | a) + KL(P^T 1 | b)  over P >= 0,   C_ij = -log cos^2(min(d_ij / (2 delta), pi/2)),
    maximise  sum a_i (1 - e^-f_i) + sum b_j (1 - e^-g_j)  over f_i + g_j <= C_ij,

with KL(p | q) = sum p log(p/q) - p + q. The optimum times 2 delta^2 is the action of the Wasserstein-Fisher-Rao geodesic from a to b, the
least integral of 1/2 |v|^2 + delta^2/2 g^2 over velocities v and growth rates g. Nothing is transported farther than pi delta. An infinite
delta is balanced optimal transport with C_ij = d_ij^2 / 2.

- `costs`: C_ij
- `values`: the two values above, the distance
- `plan`: Plan, the semi-couplings of a solution
- `dense`, `sparse`: the two stages of the solver: Sinkhorn on all pairs, Newton's method on those that matter
- `solve`: wfr_plan, and groups for large sets
- `cache`: plans in files
"""

from amgen.transport.cache import cached_plan, load_plan, plan_key, save_plan
from amgen.transport.costs import cost_matrix, wfr_cost
from amgen.transport.plan import Plan
from amgen.transport.solve import GROUP, wfr_plan
from amgen.transport.values import dual_value, primal_value, wfr_distance

__all__ = [
    "GROUP",
    "Plan",
    "cached_plan",
    "cost_matrix",
    "dual_value",
    "load_plan",
    "plan_key",
    "primal_value",
    "save_plan",
    "wfr_cost",
    "wfr_distance",
    "wfr_plan",
]
