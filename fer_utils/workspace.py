"""Names that moved to `fer_utils.experiment`; goes when nobody imports them from here."""

from fer_utils.experiment import Profile, Workspace, project_root, workspace

__all__ = ["Profile", "Workspace", "project_root", "workspace"]
