from .beam_search import BeamResult as BeamResult
from .beam_search import beam_search as beam_search
from .beam_search import beam_step as beam_step
from .beam_search import certificate as certificate
from .beam_search import length_normalized_score as length_normalized_score
