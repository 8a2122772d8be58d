"""Delete blocks, put others in their place, change their order: what each block of a model is worth.

- `lesion`: a metric without each block, or each set of blocks (Veit et al. 2016, section 4.1).
- `subsets`: the metric by the number of blocks that are left (section 4.2).
- `reorderings`: the metric after swaps of blocks (section 4.3).

The forms themselves come from `form.without(...)` and `form.reorder(...)`.
"""

from unbraid.lesions._lesion import lesion
from unbraid.lesions._lesion_study import LesionStudy
from unbraid.lesions._reorder import ReorderStudy, reorderings
from unbraid.lesions._subsets import SubsetStudy, subsets

__all__ = ["LesionStudy", "ReorderStudy", "SubsetStudy", "lesion", "reorderings", "subsets"]
