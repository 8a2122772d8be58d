"""What a report says where there is nothing to say."""

from unbraid.reports._content import Section

__all__ = ["missing"]


def missing(title: str, why: str) -> Section:
    """A section that was not run, with the reason."""
    return Section(title, f"This was not run: {why}")
