package report_test

import (
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
)

func TestRowsLookLikeATableAndAreWrittenCellByCell(t *testing.T) {
	rows := [][]string{{"40", "arithmetic", "1.5"}, {"7", "memory", "12.25"}, {"", "mean", ""}}
	table := report.NewTable("L", "<bound", "ratio")
	var out strings.Builder
	r := report.NewRows(&out, []report.Column{{Header: "L", Widest: "40"}, {Header: "<bound", Widest: "arithmetic"},
		{Header: "ratio"}})
	for _, row := range rows {
		table.Add(row...)
		r.Cells(row[:2]...)
		if !strings.HasSuffix(out.String(), row[1]) {
			t.Errorf("%q waits for the rest of its row: %q", row[1], out.String())
		}
		r.Cells(row[2])
		if err := r.End(); err != nil {
			t.Fatal(err)
		}
	}
	if want := table.String(); out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestMarkdownRows(t *testing.T) {
	var out strings.Builder
	r := report.NewMarkdownRows(&out, []report.Column{{Header: "L", Widest: "40"}, {Header: "<bound"}, {Header: "ratio"}})
	r.Cells("40", "a|b")
	r.Cells("1.5")
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	r.Cells("7")
	r.End()
	want := "| L | bound | ratio |\n| ---: | --- | ---: |\n| 40 | a\\|b | 1.5 |\n| 7 |  |  |\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
