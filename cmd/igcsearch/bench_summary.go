package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/space"
)

// summarised are the columns that have means, and the format of their cells.
var summarised = map[string]string{"GFLOP/s": "%.1f", "% of peak": "%.0f", "speed to f32": "%.2f", "MB to f32": "%.2f",
	"peer GFLOP/s": "%.1f", "ratio to peer": "%.1f"}

// benchValues are what the last rows summarise of one row, by the headers of its columns.
type benchValues struct {
	network   int // of the list
	precision string
	of        map[string]float64
}

// cell is a value as a cell, empty if there is none.
func (v benchValues) cell(header string) string {
	if value, ok := v.of[header]; ok {
		return fmt.Sprintf(summarised[header], value)
	}
	return ""
}

// benchLine is one of the last rows of the table: a label and what it says of a column.
type benchLine struct {
	label string
	of    func(network int) bool
	value func([]float64) float64
}

// lines are those of networks: means of each study and of the pairs with M = 2, if there are
// several and others, and of all.
func (o benchOptions) lines(networks []space.System) (lines []benchLine) {
	groups := o.pairs.groups
	if len(o.systems) > 0 {
		groups = nil
	}
	for _, g := range groups {
		if g.to-g.from < len(networks) {
			in := func(i int) bool { return g.from <= i && i < g.to }
			lines = append(lines, benchLine{"mean, " + g.name, in, geometricMean})
		}
	}
	pairsOf2 := func(i int) bool { return networks[i].Pair().M == 2 }
	n := 0
	for i := range networks {
		if pairsOf2(i) {
			n++
		}
	}
	if 1 < n && n < len(networks) && len(o.systems) == 0 {
		lines = append(lines, benchLine{"mean, M = 2", pairsOf2, geometricMean})
	}
	every := func(int) bool { return true }
	return append(lines, benchLine{"mean", every, geometricMean}, benchLine{"lowest", every, slices.Min[[]float64]},
		benchLine{"highest", every, slices.Max[[]float64]})
}

// summary is the last rows of the table, by the headers of its columns.
func (b *bencher) summary(all []benchValues) (rows []map[string]string) {
	label := "images/s" // where there is room for it
	if b.format == "markdown" {
		label = strings.TrimPrefix(b.columns[0].Header, "<")
	}
	for _, line := range b.lines(b.list) {
		for _, precision := range b.precisions {
			columns := means{}
			for _, v := range all {
				if v.precision == precision && line.of(v.network) {
					for header, value := range v.of {
						columns.add(header, value)
					}
				}
			}
			row := map[string]string{label: line.label, "precision": precision}
			for header, values := range columns {
				row[header] = fmt.Sprintf(summarised[header], line.value(values))
			}
			if len(columns) > 0 {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func geometricMean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}
