package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// textTable is a table for a terminal or a text file: columns of numbers to
// the right, no colours, no borders.
type textTable struct {
	w table.Writer
}

// newTable starts a table; a header that begins with '<' is of a column of
// words, to the left.
func newTable(header ...string) *textTable {
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
	return &textTable{w: w}
}

func (t *textTable) add(cells ...string) {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		row[i] = c
	}
	t.w.AppendRow(row)
}

// String ends with a newline.
func (t *textTable) String() string { return t.w.Render() + "\n" }

// count is "1 pair", "2 pairs".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// printJSON writes v with indents, and text as it is.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
