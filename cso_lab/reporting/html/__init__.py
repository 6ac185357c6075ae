"""report.html of runs and sweeps: `report_data` reads files, a module per section makes charts and tables, `page` puts them together."""
