"""Training methods as values; their names are in `bgaug.names.METHODS`.

`bgaug` is the default: the terms on the global and on the dynamic code. `semi` has only the term on the global code;
`dual` also has the term on the static code, as a code of the scene: it costs a second last stage and changes no
accuracy. `simclr`, `moco` and `byol` see plain views; the others are `semi` with the pairs of a published policy (see
`bgaug.pairs.POLICIES`), so that a comparison is of pairs only; `dclr` compares input modes, see `bgaug.model.modes`.

`supervised` learns the labels of the store, on plain clips or on the composites of a policy (`--set policy=...`), which
keep the label of their foreground; `supervised-albar` adds ALBAR's terms, with the weights of the published code; see
`bgaug.model.supervised`.

References: T. Chen et al., SimCLR, 2020, arXiv 2002.05709; X. Chen et al., "Improved baselines with momentum
contrastive learning" (MoCo v2), 2020, arXiv 2003.04297; J.-B. Grill et al., "Bootstrap your own latent", 2020, arXiv
2006.07733.
"""

from __future__ import annotations

from dataclasses import replace

from bgaug.model.method import Method

BGAUG = Method("bgaug", w_dynamic=0.5)
SEMI = Method("semi")
DUAL = Method("dual", w_dynamic=0.5, w_static=0.5)
SIMCLR = Method("simclr", policy="none")
MOCO = Method("moco", policy="none", momentum=True)
BYOL = Method("byol", policy="none", objective="byol", momentum=True, bn_groups=1)
FAME = Method("fame", policy="fame")
FAME_PUBLISHED = Method("fame-published", policy="fame-published")
BE = Method("be", policy="be")
BE_INTER = Method("be-inter", policy="be-inter")
STILLMIX = Method("stillmix", policy="stillmix")
ACTORCUTMIX = Method("actorcutmix", policy="actorcutmix")
ACTORCUTMIX_PUBLISHED = Method("actorcutmix-published", policy="actorcutmix-published")
MIXUP = Method("mixup", policy="mixup")
CUTMIX = Method("cutmix", policy="cutmix")
DCLR = Method("dclr", policy="none", objective="dclr")
SUPERVISED = Method("supervised", policy="none", objective="supervised", dropout=0.5)
SUPERVISED_ALBAR = replace(SUPERVISED, name="supervised-albar", w_adversarial=1.0, w_entropy=4.25, w_penalty=10.0)
