package report

import (
	"fmt"
	"io"

	"igcsearch/store/table"
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	Format string // csv, json, markdown or latex
	Epochs bool   // csv, json: each epoch, not only the last of each trial; needs the History of the trials
	Times  bool   // csv, json: with the seconds of each epoch
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
	case "markdown":
		_, err := fmt.Fprintf(stdout, "%s\n\n%s.\n", r.SummaryTable().Markdown(), markdownEscape.Replace(r.Caption()))
		return err
	}
	header := []string{"L", "M", "width", "parameters"}
	if !r.Study.OfPairs() {
		header = []string{"<network", "depth", "parameters"}
	}
	t := latexTable{Caption: r.Caption(), Label: r.Study.Name, Header: append(header, "accuracy (%)", "n")}
	for _, n := range r.Networks() {
		t.Rows = append(t.Rows, append(r.Name(n.System, n.Params), n.Accuracy(), n.N()))
	}
	_, err := io.WriteString(stdout, latexPreamble+t.String())
	return err
}
