package report

import (
	"io"

	"igcsearch/store/table"
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	Format string // csv, json, markdown or latex
	Epochs bool   // csv, json: each epoch, not only the last of each trial; needs the History of the trials
	Times  bool   // csv, json: with the seconds of each epoch
	// Choose is the split by which markdown and latex choose the network that they print in bold, "" for the one that
	// decides.
	Choose string
}

// Export writes the results for other programs and for papers.
func (r Results) Export(stdout io.Writer, o ExportOptions) error {
	rows := table.LastRows
	if o.Epochs {
		rows = table.AllRows
	}
	switch o.Format {
	case "csv":
		return table.WriteCSV(stdout, r.Study, rows(r.Study, r.Trials), o.Times)
	case "json":
		return table.WriteJSON(stdout, r.Study, rows(r.Study, r.Trials), o.Times)
	}
	return WriteTable(stdout, []Results{r}, o)
}
