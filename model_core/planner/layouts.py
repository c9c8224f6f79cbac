"""Whether a model can be laid out over processes, and which blocks each stage of a pipeline holds.

Rules that need no shape, such as which ZeRO stage a pipeline wants, are in `model_core.config.combinations`.
"""

from __future__ import annotations

import itertools
import math

from model_core.config import ModelConfig, ParallelConfig
from model_core.errors import ConfigError
from model_core.planner.dense import DenseModel
from model_core.planner.parameters import Shape


def blocks_of_stages(num_blocks: int, num_stages: int) -> list[range]:
    """The blocks of each stage: equally many, or one more in some; the last has the fewest, because it has the head too."""
    starts = [-(-num_blocks * stage // num_stages) for stage in range(num_stages + 1)]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def check_layout(config: Shape, parallel: ParallelConfig) -> None:
    """Raises ConfigError at the first field of `parallel` that the model's shape does not allow, with the nearest value
    that it does."""
    if isinstance(config, DenseModel):
        check_whole(config.model_type, parallel)
        return
    _check_experts(config, parallel)
    _check_stages(config, parallel)
    _check_shards(config, parallel)


def check_whole(model_type: str, parallel: ParallelConfig) -> None:
    """Raises ConfigError where a dense student would not be whole on each process."""
    for name in ("pipeline", "tensor", "expert", "zero_stage"):
        if (found := getattr(parallel, name)) > 1:
            raise ConfigError(
                f"{name} is {found}, but a dense student ({model_type}) is trained whole on each process; set it to 1.",
                field=f"parallel.{name}",
            )


def _check_experts(config: ModelConfig, parallel: ParallelConfig) -> None:
    num_ranks, where = parallel.expert, "parallel.expert"
    if num_ranks == 1:
        return
    if config.first_k_dense_replace >= config.num_hidden_layers:
        raise ConfigError(f"expert is {num_ranks}, but the model has no expert layer; set it to 1.", field=where)
    if config.n_routed_experts % num_ranks:
        raise ConfigError(
            f"expert is {num_ranks}, but {config.n_routed_experts} routed experts cannot be split over {num_ranks} ranks; "
            f"the nearest that can is {_nearest_divisor(config.n_routed_experts, num_ranks)}.", field=where,
        )  # fmt: skip
    if config.n_group == config.n_routed_experts:
        raise ConfigError(
            f"expert is {num_ranks}, but n_group is {config.n_group}: groups of one expert cannot be split; set expert to 1.",
            field=where,
        )


def _check_stages(config: ModelConfig, parallel: ParallelConfig) -> None:
    num_stages, where = parallel.pipeline, "parallel.pipeline"
    if num_stages == 1:
        return
    if num_stages > config.num_hidden_layers:
        raise ConfigError(
            f"pipeline is {num_stages}, but the model has {config.num_hidden_layers} blocks and every stage needs one; set it "
            f"to at most {config.num_hidden_layers}.", field=where,
        )  # fmt: skip
    if config.num_nextn_predict_layers:
        raise ConfigError(
            f"pipeline is {num_stages}, but the block of multi-token prediction needs the embedding of the first stage and "
            "the head of the last; set pipeline to 1, or num_nextn_predict_layers to 0.", field=where,
        )  # fmt: skip
    first = blocks_of_stages(config.num_hidden_layers, num_stages)[0]
    if parallel.expert > 1 and first.stop <= config.first_k_dense_replace:
        most = next(n for n in range(num_stages, 0, -1)
                    if blocks_of_stages(config.num_hidden_layers, n)[0].stop > config.first_k_dense_replace)  # fmt: skip
        raise ConfigError(
            f"pipeline is {num_stages} with expert {parallel.expert}, but its first stage has dense blocks only and no expert "
            f"to split; set pipeline to at most {most}, or expert to 1.", field=where,
        )  # fmt: skip


def _check_shards(config: ModelConfig, parallel: ParallelConfig) -> None:
    widths = {"num_attention_heads": config.num_attention_heads}
    if config.first_k_dense_replace:
        widths["intermediate_size"] = config.intermediate_size
    if config.n_shared_experts and config.first_k_dense_replace < config.num_hidden_layers:
        widths["moe_intermediate_size times n_shared_experts"] = config.moe_intermediate_size * config.n_shared_experts
    for name, width in widths.items():
        if width % parallel.tensor:
            nearest = _nearest_divisor(math.gcd(*widths.values()), parallel.tensor)
            raise ConfigError(
                f"tensor is {parallel.tensor}, which does not divide {name} {width}; the nearest that divides is {nearest}.",
                field="parallel.tensor",
            )


def _nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`; of two equally near the smaller."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))
