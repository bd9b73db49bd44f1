"""The section `report` of params.yaml."""

from irra.config.section import ConfigSection, Count, Seed, param


class ReportConfig(ConfigSection):
    """What the report shows of the results."""

    sheet_queries: Count = param(5, "sentences on a sheet of pictures, each about a different person")
    seed: Seed = param(0, "of the sheet of random queries")
