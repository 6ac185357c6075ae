"""Makes +table=... and +figure=... known, whatever else is added to Hydra's search path."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ExperimentsSearchPath(SearchPathPlugin):
    """Adds experiments/. In config.yaml it would be lost where the command line sets hydra.searchpath, which replaces that list."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends the folder experiments/."""
        search_path.append(provider="cso_lab", path="pkg://experiments")
