package report_test

import (
	"bytes"
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
)

// TestText writes a text in pieces of every size: characters that are cut in two come out whole.
func TestText(t *testing.T) {
	t.Parallel()
	const text = "± 手 🖐 \x1b[31m \u202e \x9b \xe2\x82 \u009b end \xf0\x9f"
	want := search.Printable(text)
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		w := report.NewText(&out)
		for rest := []byte(text); len(rest) > 0; {
			n, err := w.Write(rest[:min(size, len(rest))])
			if err != nil || n != min(size, len(rest)) {
				t.Fatalf("%d bytes written, %v", n, err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want {
			t.Errorf("in pieces of %d bytes: %q, want %q", size, got, want)
		}
	}
	if strings.ContainsAny(want, "\x1b\u202e\u009b") {
		t.Errorf("%q", want)
	}
}

// TestTableCells: what is in a cell changes neither the rows of a table nor the terminal.
func TestTableCells(t *testing.T) {
	t.Parallel()
	table := report.NewTable("<host", "pid")
	table.Add("n1\nn2 9\x1b[2J", "7")
	for name, text := range map[string]string{"text": table.String(), "markdown": table.Markdown() + "\n"} {
		if n := strings.Count(text, "\n"); n != 3 || !strings.Contains(text, `n1; n2 9\u001b[2J`) {
			t.Errorf("%s of %d lines:\n%s", name, n, text)
		}
	}
}
