// Package report holds the tables and words in which commands show the results of a study: as text, markdown, LaTeX,
// CSV and JSON.
package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is a table for a terminal or a text file: without colours and borders, numbers to the right.
type Table struct{ w table.Writer }

// NewTable starts a table. A header that begins with '<' is that of a column of words, to the left.
func NewTable(header ...string) *Table {
	w := table.NewWriter()
	style := table.StyleLight
	style.Options = table.Options{SeparateColumns: true, SeparateHeader: true}
	style.Box.MiddleVertical = " "
	style.Box.MiddleSeparator = style.Box.MiddleHorizontal
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	row := make(table.Row, len(header))
	configs := make([]table.ColumnConfig, len(header))
	for i, h := range header {
		name, isWords := strings.CutPrefix(h, "<")
		align := text.AlignRight
		if isWords {
			align = text.AlignLeft
		}
		row[i] = name
		configs[i] = table.ColumnConfig{Number: i + 1, Align: align, AlignHeader: align}
	}
	w.AppendHeader(row)
	w.SetColumnConfigs(configs)
	return &Table{w: w}
}

// Add adds a row.
func (t *Table) Add(cells ...string) {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = c
	}
	t.w.AppendRow(row)
}

// tableOf is a table with its rows.
func tableOf(header []string, rows [][]string) *Table {
	t := NewTable(header...)
	for _, row := range rows {
		t.Add(row...)
	}
	return t
}

// String ends with a newline.
func (t *Table) String() string { return t.w.Render() + "\n" }

// Markdown has no newline at its end.
func (t *Table) Markdown() string { return t.w.RenderMarkdown() }

var markdownEscape = strings.NewReplacer("_", `\_`, "*", `\*`, "|", `\|`)

// Count is "1 pair", "2 pairs".
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Percent is a fraction in percent with two decimals; empty if the total is 0, that is if nothing was evaluated.
func Percent(correct, total int) string {
	if total == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", 100*float64(correct)/float64(total))
}

// JSON writes v with indents, and texts as they are.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// CSV writes a header and rows.
func CSV(w io.Writer, header []string, rows [][]string) error {
	out := csv.NewWriter(w)
	out.Write(header) // out keeps an error until the end
	out.WriteAll(rows)
	return out.Error()
}
