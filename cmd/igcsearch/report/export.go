package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"igcsearch/search/analysis"
	"igcsearch/store/table"
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	Format string // csv, json, markdown or latex
	Epochs bool   // csv, json: each epoch, not only the last of each trial; needs the History of the trials
	Times  bool   // csv, json: with the seconds of each epoch
	// Choose is the split by which markdown and latex choose the network that they print in bold, "" for the one that
	// decides. Nothing is bold if it is the split that they show.
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
	t, err := r.choiceTable(o.Choose)
	if err != nil {
		return err
	}
	if o.Format == "markdown" {
		for row := range t.Bold {
			for i, cell := range t.Rows[row] {
				t.Rows[row][i] = "**" + cell + "**"
			}
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n", tableOf(t.Header, t.Rows).Markdown(),
			markdownEscape.Replace(t.Caption))
		return err
	}
	_, err = io.WriteString(stdout, latexPreamble+t.String())
	return err
}

// choiceTable is the table of a paper: a row for each network, with the best by the split choose in bold and its
// accuracy on that split beside.
func (r Results) choiceTable(choose string) (latexTable, error) {
	header := r.NameHeader()
	header[slices.Index(header, "params")] = "parameters"
	t := latexTable{Caption: r.Caption(), Label: r.Study.Name, Bold: map[int]bool{}}
	choosing, err := r.Showing(cmp.Or(choose, r.Study.DecidingSplit()))
	if err != nil {
		return t, err
	}
	split, by := r.Study.Split, choosing.Study.Split
	if by == split {
		t.Header = append(header, split+" accuracy (%)", "n")
	} else {
		t.Header = append(header, by+" (%)", split+" (%)", "n")
	}
	others := choosing.Networks()
	for i, n := range r.Networks() {
		row := r.Name(n)
		if by != split {
			row = append(row, others[i].Accuracy())
		}
		t.Rows = append(t.Rows, append(row, n.Accuracy(), n.N()))
	}
	if best := analysis.Analyze(choosing.Samples()).Best; by != split && best >= 0 {
		t.Bold[best] = true
		t.Caption += fmt.Sprintf("; bold is %s, chosen by %s", others[best].Label(), choosing.SplitPictures())
	}
	return t, nil
}
