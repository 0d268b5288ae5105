"""Validation: pure, named, versioned rules. A verdict names every rule that spoke."""

from headend.vee.register import Base, Candidate, Judgement, RuleSet, judge

__all__ = ["Base", "Candidate", "Judgement", "RuleSet", "judge"]
