"""The student of distillation: a dense causal model of Hugging Face, trained and sampled as our own model is.

`shape` is its config.json, `student` the module with the calls of `model_core.model.Transformer`, `exchange` reads and
writes directories, `sampler` draws completions. Which of both a run has to do with is told by `model_core.training.families`.
"""

from model_core.causal.exchange import count_dense, export_student, load_student
from model_core.causal.sampler import StudentSampler
from model_core.causal.shape import DenseShape
from model_core.causal.student import Student
from model_core.published.families import DENSE

__all__ = ["DENSE", "DenseShape", "Student", "StudentSampler", "count_dense", "export_student", "load_student"]
