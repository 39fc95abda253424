// Package report holds the tables and words in which commands show the results of a study: as text, markdown, LaTeX,
// CSV and JSON.
package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"igcsearch/search"
)

// Text writes what people read. Whatever a package, a file or a server has put into it, a terminal obeys none of it:
// see search.Printable. It can be used concurrently.
type Text struct {
	out  io.Writer
	mu   sync.Mutex
	rest []byte // of a character whose other bytes come with the next Write
	err  error  // the first of writing
}

// NewText returns a Text that writes to out.
func NewText(out io.Writer) *Text { return &Text{out: out} }

func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := append(t.rest, p...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				whole = at
			}
			break
		}
	}
	t.rest = bytes.Clone(text[whole:])
	if t.write(text[:whole]); t.err != nil {
		return 0, t.err
	}
	return len(p), nil
}

func (t *Text) write(text []byte) {
	if _, err := io.WriteString(t.out, search.Printable(string(text))); t.err == nil {
		t.err = err
	}
}

// Flush writes the bytes of a character that was not completed. It returns the first error of all writing, so that no
// command must look for one after each line that it prints, and none ends well if the disk behind its output is full.
func (t *Text) Flush() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.write(t.rest)
	t.rest = nil
	return t.err
}

// Unwrap returns the writer below a Text, for what moves the cursor of a terminal itself, and w if it is no Text.
func Unwrap(w io.Writer) io.Writer {
	if t, ok := w.(*Text); ok {
		return t.out
	}
	return w
}

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
		row[i] = search.PrintableLine(c)
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
