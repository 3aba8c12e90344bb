"""The table of the model's parts at the start of a run, without a count of operations that nobody counted."""

from typing import Any

from pytorch_lightning.callbacks import ModelSummary
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.model_summary.model_summary import get_human_readable_count

FLOPS = "FLOPs"  # Lightning's column


def leave_out_flops(callback: ModelSummary) -> None:
    """Lets a ModelSummary leave out the FLOPs where they are not known.

    Lightning counts them in a forward pass of the model's ``example_input_array``, and prints 0 where there is none. Here the
    size of a clip is up to the data, and a pass costs seconds; configs/README.md has the cost of each recipe. Delete when
    Lightning leaves the column out.
    """
    whole: Any = callback.summarize

    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *args: Any,
        total_flops: int = 0,
        **kwargs: Any,
    ) -> None:
        if total_flops:
            whole(
                summary_data,
                total_parameters,
                trainable_parameters,
                model_size,
                *args,
                total_flops=total_flops,
                **kwargs,
            )
            return
        columns = [[name, *values] for name, values in summary_data if name != FLOPS]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        ]
        rule = "-" * max(map(len, lines))
        totals = (
            (trainable_parameters, "trainable parameters"),
            (total_parameters - trainable_parameters, "frozen parameters"),
            (total_parameters, "parameters"),
        )
        told = [f"{get_human_readable_count(number):10}{what}" for number, what in totals]
        rank_zero_info("\n".join(["", lines[0], rule, *lines[1:], rule, *told, f"{model_size:<10.3f}MB of parameters"]))

    callback.summarize = summarize  # type: ignore[method-assign, assignment]
