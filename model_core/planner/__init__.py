"""What a model takes, from its configuration alone and without torch: parameters, memory, FLOPs, time, cost, a layout that fits."""

from model_core.planner.cost import Cost, Throughput, cost_of_tokens, from_peak, price_of_hours, stated
from model_core.planner.dense import DenseModel
from model_core.planner.devices import DEVICES, Device, Fleet, parse_devices
from model_core.planner.flops import Flops, flops
from model_core.planner.layouts import blocks_of_stages, check_layout
from model_core.planner.memory import Memory, Moment, Work, cache_bytes, memory
from model_core.planner.parameters import Parameters, Shape, count_parameters, parameters
from model_core.planner.run import needed_bytes, refuse_too_large, shape_of, work_of
from model_core.planner.search import Found, smallest_layout
from model_core.planner.seconds import Lengths, Rates, StepSeconds, step_seconds
from model_core.planner.serving import Load, Need, ServedModel, devices_that_fit, need

__all__ = [
    "DEVICES", "Cost", "DenseModel", "Device", "Fleet", "Flops", "Found", "Lengths", "Load", "Memory", "Moment", "Need",
    "Parameters", "Rates", "ServedModel", "Shape", "StepSeconds", "Throughput", "Work", "blocks_of_stages",
    "cache_bytes", "check_layout", "cost_of_tokens", "count_parameters", "devices_that_fit", "flops", "from_peak", "memory",
    "need", "needed_bytes", "parameters", "parse_devices", "price_of_hours", "refuse_too_large", "shape_of",
    "smallest_layout", "stated", "step_seconds", "work_of",
]  # fmt: skip
