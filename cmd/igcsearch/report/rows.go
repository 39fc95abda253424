package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"igcsearch/search"
)

// Column is a column of Rows.
type Column struct {
	Header string // one that begins with '<' is that of a column of words, to the left
	Widest string // a cell as wide as any that is expected; the header may be wider
}

// Rows writes a table like Table's, each cell as soon as it is known. A cell wider than its column moves the rest of
// its row.
type Rows struct {
	out     io.Writer
	columns []Column
	marks   bool   // of Markdown
	next    int    // the column of the next cell
	spaces  string // to be written before the next cell that is not empty
	err     error
}

// NewRows writes the header.
func NewRows(out io.Writer, columns []Column) *Rows {
	r := &Rows{out: out, columns: columns}
	line := 0
	for i := range columns {
		r.Cells(strings.TrimPrefix(columns[i].Header, "<"))
		line += r.width(i) + 3
	}
	r.End()
	r.write(strings.Repeat("─", line-1) + "\n")
	return r
}

// NewMarkdownRows writes the header of a table of Markdown.
func NewMarkdownRows(out io.Writer, columns []Column) *Rows {
	r := &Rows{out: out, columns: columns, marks: true}
	rule := ""
	for _, c := range columns {
		name, isWords := strings.CutPrefix(c.Header, "<")
		r.Cells(name)
		if rule += "| ---"; !isWords {
			rule += ":"
		}
		rule += " "
	}
	r.End()
	r.write(rule + "|\n")
	return r
}

func (r *Rows) width(i int) int {
	return max(utf8.RuneCountInString(strings.TrimPrefix(r.columns[i].Header, "<")),
		utf8.RuneCountInString(r.columns[i].Widest))
}

// Cells writes the next cells of the row.
func (r *Rows) Cells(cells ...string) {
	for _, cell := range cells {
		cell = search.PrintableLine(cell)
		if r.marks {
			r.write("| " + strings.ReplaceAll(cell, "|", `\|`) + " ")
			r.next++
			continue
		}
		pad := strings.Repeat(" ", max(0, r.width(r.next)-utf8.RuneCountInString(cell)))
		left, right := pad, ""
		if strings.HasPrefix(r.columns[r.next].Header, "<") {
			left, right = "", pad
		}
		r.spaces += " " + left
		if cell != "" {
			r.write(r.spaces + cell)
			r.spaces = ""
		}
		r.spaces += right + "  "
		r.next++
	}
}

// End ends the row. It returns the first error of writing.
func (r *Rows) End() error {
	if r.marks {
		r.Cells(make([]string, len(r.columns)-r.next)...)
		r.write("|")
	}
	r.write("\n")
	r.next, r.spaces = 0, ""
	return r.err
}

func (r *Rows) write(text string) {
	if _, err := fmt.Fprint(r.out, text); r.err == nil {
		r.err = err
	}
}
