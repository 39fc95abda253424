package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/space"
)

func TestARowIsWrittenBeforeItsPeerIsMeasured(t *testing.T) {
	var out strings.Builder
	b := bencher{benchOptions: benchOptions{format: "table"}, stdout: &out, stderr: io.Discard,
		list:    []space.System{space.PairSystem(space.Pair{L: 3, M: 2}), space.PairSystem(space.Pair{L: 2, M: 3})},
		columns: []report.Column{{Header: "ours"}, {Header: "theirs"}}}
	broken := errors.New("broken")
	rows := []string{"1.5", "2.5"}
	err := b.each(func(space.System) (measured, error) {
		row := rows[b.done]
		return measured{caption: "above", line: 1, row: []string{row}, peer: func() ([]string, error) {
			if !strings.HasSuffix(out.String(), row) {
				t.Errorf("the peer begins before %s is written: %q", row, out.String())
			}
			if b.done == 2 {
				return nil, broken
			}
			return []string{"7"}, nil
		}}, nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if want := "above\n\n ours   theirs\n───────────────\n  1.5        7\n  2.5\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
