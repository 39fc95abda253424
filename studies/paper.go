package studies

import (
	"fmt"
	"strconv"
	"strings"

	"igcsearch/space"
)

// What says what a Cell holds.
type What string

const (
	BlockParams    What = "parameters of a block"
	Width          What = "width"
	Structure      What = "layers of a stage"
	Params         What = "parameters"
	MultiplyAdds   What = "multiply–adds"
	Accuracy       What = "accuracy (%)"
	Error          What = "error (%)"                // 100 − accuracy
	TrainError     What = "training error (%)"       // of the last epoch, as it was augmented
	Top5Error      What = "top-5 error (%)"          // not measured
	TrainTop5Error What = "training top-5 error (%)" // not measured
)

// notTop5 is the note of the cells that no study measures.
const notTop5 = "igcsearch measures top-1 errors only"

// Measurable reports whether a study can measure what the cell holds.
func (w What) Measurable() bool { return w == Accuracy || w == Error || w == TrainError }

// Cell is one number, or one text, that the paper prints.
type Cell struct {
	Network string // the name in the paper
	System  space.System
	Plan    space.Plan
	Data    string // "CIFAR-10", …; empty if the cell is computed
	Study   string // the study that measures the cell; empty if it is computed
	What    What
	// Unit divides what is counted: 1e6 for millions.
	Unit float64
	// Paper is what the paper prints; empty if the paper only draws it.
	Paper string
	// Note says why ours differs, if we know it.
	Note string
}

// PaperTables lists the names of the tables that Paper knows.
var PaperTables = []string{"table1", "table2", "table3", "table4", "table5", "table6", "table7", "fig3"}

var (
	cifar    = space.Shape{C: 3, H: 32, W: 32}
	imagenet = space.Shape{C: 3, H: 224, W: 224}
)

// Paper returns the cells of a table of the paper, row by row. Those of Figure 3 are the pairs that it draws, with the
// accuracies in its text.
func Paper(table string) ([]Cell, error) {
	switch table {
	case "table1":
		return table1(), nil
	case "table2":
		return table2(), nil
	case "table3":
		return table3(), nil
	case "table4":
		cells := table45("table4-cifar10", "CIFAR-10", table4CIFAR10)
		return append(cells, table45("table4-cifar100", "CIFAR-100", table4CIFAR100)...), nil
	case "table5":
		cells := table45("table5-cifar10", "CIFAR-10", table5CIFAR10)
		return append(cells, table45("table5-cifar100", "CIFAR-100", table5CIFAR100)...), nil
	case "table6":
		return table6(), nil
	case "table7":
		return table7(), nil
	case "fig3":
		cells := fig3("fig3a", []string{"", "", "", "", "", "", "", "63.89", "63.07"}, table1i)
		return append(cells, fig3("fig3b", make([]string, len(table1ii)), table1ii)...), nil
	}
	return nil, fmt.Errorf("paper %q: want one of %s", table, strings.Join(PaperTables, ", "))
}

// cell returns a Cell of the network with that name in the paper.
func cell(name string, p space.Plan, what What, unit float64, paper string) Cell {
	s, err := space.ParseSystem(name)
	if err != nil {
		panic(err) // the names are constants
	}
	return Cell{Network: name, System: s, Plan: p, What: what, Unit: unit, Paper: paper}
}

// Pairs, parameters and widths of Table 1, in its order.
type table1Row struct {
	pair          space.Pair
	params, width string
}

var table1i = []table1Row{
	{space.Pair{L: 1, M: 23}, "4784", "23"}, {space.Pair{L: 2, M: 16}, "4672", "32"},
	{space.Pair{L: 3, M: 13}, "4680", "39"}, {space.Pair{L: 5, M: 10}, "4750", "50"},
	{space.Pair{L: 6, M: 9}, "4698", "54"}, {space.Pair{L: 12, M: 6}, "4752", "72"},
	{space.Pair{L: 28, M: 3}, "4620", "84"}, {space.Pair{L: 40, M: 2}, "4640", "80"},
	{space.Pair{L: 64, M: 1}, "4672", "64"},
}

var table1ii = []table1Row{
	{space.Pair{L: 1, M: 44}, "17468", "44"}, {space.Pair{L: 2, M: 31}, "17422", "63"},
	{space.Pair{L: 4, M: 22}, "17776", "88"}, {space.Pair{L: 12, M: 12}, "17280", "144"},
	{space.Pair{L: 14, M: 11}, "17402", "154"}, {space.Pair{L: 23, M: 8}, "17480", "184"},
	{space.Pair{L: 28, M: 7}, "17836", "196"}, {space.Pair{L: 41, M: 5}, "17630", "205"},
	{space.Pair{L: 64, M: 3}, "17472", "192"}, {space.Pair{L: 85, M: 2}, "17510", "170"},
	{space.Pair{L: 128, M: 1}, "17536", "128"},
}

func table1() (cells []Cell) {
	for _, row := range append(table1i[:len(table1i):len(table1i)], table1ii...) {
		p := space.Plan{Layout: space.Flat, In: cifar, Classes: 100}
		name := "IGC-" + row.pair.String()
		width := cell(name, p, Width, 1, row.width)
		if row.width == "63" {
			width.Note = "L·M = 2·31 is 62; the parameters beside it are those of 62"
		}
		cells = append(cells, cell(name, p, BlockParams, 1, row.params), width)
	}
	return cells
}

// table2 has the blocks of the three stages. The paper does not print the first block of a stage, which has stride 2
// and other inputs.
func table2() (cells []Cell) {
	for _, row := range []struct {
		name   string
		stages [3]string
	}{
		{"SumFusion", [3]string{"4 × (3×3, 8), summation", "4 × (3×3, 16), summation", "4 × (3×3, 32), summation"}},
		{"RegConv-W16", [3]string{"(3×3, 16)", "(3×3, 32)", "(3×3, 64)"}}, // the paper has c, 2c, 4c
		{"RegConv-W18", [3]string{"(3×3, 18)", "(3×3, 36)", "(3×3, 72)"}},
		{"IGC-L4M8", [3]string{"4 × (3×3, 8), 8 × (1×1, 4)", "4 × (3×3, 16), 16 × (1×1, 4)",
			"4 × (3×3, 32), 32 × (1×1, 4)"}},
		{"IGC-L24M2", [3]string{"24 × (3×3, 2), 2 × (1×1, 24)", "24 × (3×3, 4), 4 × (1×1, 24)",
			"24 × (3×3, 8), 8 × (1×1, 24)"}},
		{"IGC-L32M26", [3]string{"32 × (3×3, 26), 26 × (1×1, 32)", "32 × (3×3, 52), 52 × (1×1, 32)",
			"32 × (3×3, 104), 104 × (1×1, 32)"}},
	} {
		for i, text := range row.stages {
			c := cell(row.name, space.Plan{Layout: space.Stages, Depth: 20, In: cifar, Classes: 10}, Structure, 0,
				fmt.Sprintf("%d×%d: %s", 32>>i, 32>>i, text))
			c.Unit = float64(i) // the stage
			cells = append(cells, c)
		}
	}
	return cells
}

func table3() (cells []Cell) {
	names := []string{"RegConv-W16", "RegConv-W18", "IGC-L4M8", "IGC-L24M2"}
	for _, row := range []struct {
		depth int
		text  string // parameters (10⁶), then multiply–adds (10⁸)
	}{
		{8, "0.075 0.095 0.078 0.047 0.122 0.154 0.131 0.099"},
		{20, "0.27 0.34 0.27 0.15 0.406 0.513 0.424 0.288"},
		{38, "0.56 0.71 0.57 0.31 0.830 1.05 0.862 0.571"},
		{62, "0.95 1.20 0.96 0.52 1.40 1.77 1.45 0.948"},
		{98, "1.53 1.93 1.56 0.83 2.25 2.84 2.32 1.51"},
	} {
		p := space.Plan{Layout: space.Stages, Depth: row.depth, In: cifar, Classes: 10}
		for i, text := range strings.Fields(row.text) {
			if i < 4 {
				cells = append(cells, cell(names[i], p, Params, 1e6, text))
			} else {
				cells = append(cells, cell(names[i-4], p, MultiplyAdds, 1e8, text))
			}
		}
	}
	return cells
}

// accuracies are rows of a table, "depth mean std mean std …".
type accuracies struct {
	names []string
	rows  []string
}

var (
	table4Names = []string{"SumFusion", "RegConv-W16", "RegConv-W18", "IGC-L4M8", "IGC-L24M2"}
	table5Names = []string{"RegConv-W16+Ident.", "RegConv-W18+Ident.", "IGC-L4M8+Ident.", "IGC-L24M2+Ident."}

	table4CIFAR10 = accuracies{table4Names, []string{
		"8 84.94 0.40 89.46 0.16 90.30 0.25 89.89 0.24 90.31 0.39",
		"20 88.71 0.46 92.24 0.17 92.55 0.14 92.54 0.37 92.84 0.26",
		"38 86.95 0.77 90.77 0.23 91.57 0.09 92.05 0.76 92.24 0.62",
		"62 82.66 0.75 88.22 0.91 88.60 0.49 89.23 0.89 90.03 0.85",
	}}
	table4CIFAR100 = accuracies{table4Names, []string{
		"8 52.01 0.77 62.83 0.32 64.70 0.27 64.18 0.70 65.60 0.59",
		"20 59.33 0.86 67.90 0.14 68.71 0.32 69.45 0.69 70.54 0.61",
		"38 57.18 1.21 64.04 0.42 65.00 0.57 67.33 0.48 69.56 0.76",
		"62 48.68 3.84 56.88 1.16 58.52 2.31 63.06 1.42 65.84 0.75",
	}}
	table5CIFAR10 = accuracies{table5Names, []string{
		"50 94.40 0.45 94.67 0.25 94.74 0.54 94.88 0.32",
		"74 94.66 0.30 94.77 0.59 94.79 0.40 94.95 0.23",
		"98 94.71 0.44 94.95 0.39 94.81 0.30 95.15 0.48",
	}}
	table5CIFAR100 = accuracies{table5Names, []string{
		"50 72.98 0.75 73.97 0.49 74.00 0.69 74.89 0.67",
		"74 74.04 0.62 74.55 0.89 75.15 0.49 75.41 0.75",
		"98 74.49 0.66 75.30 0.88 75.58 0.80 76.15 0.50",
	}}
)

func table45(study, data string, a accuracies) (cells []Cell) {
	for _, row := range a.rows {
		f := strings.Fields(row)
		depth, err := strconv.Atoi(f[0])
		if err != nil {
			panic(err)
		}
		for i, name := range a.names {
			c := cell(name, space.Plan{Layout: space.Stages, Depth: depth, In: cifar, Classes: 10}, Accuracy, 1,
				f[1+2*i]+" ± "+f[2+2*i])
			c.Data, c.Study = data, study
			cells = append(cells, c)
		}
	}
	return cells
}

func table6() (cells []Cell) {
	// The authors publish their models, which have as many parameters as ours.
	for _, row := range []struct {
		name, paper, params, madds   string
		train1, train5, test1, test5 string
		note, maddsNote              string
	}{
		{"ResNet-C64", "ResNet (C = 64)", "11.151", "1.8", "22.41", "6.53", "31.06", "11.38",
			"the authors' model has as many; 11.167 without the linear layer", ""},
		{"ResNet-C69", "ResNet (C = 69)", "11.333", "2.1", "21.43", "5.96", "30.58", "10.77",
			"the authors' model has as many; the paper's is 1.016 times that of C = 64, where parameters grow as C²," +
				" 1.16 times, as its multiply–adds do", ""},
		{"IGC-L4M32+Ident.", "IGC-L4M32+Ident.", "11.205", "1.9", "21.71", "6.21", "30.77", "10.99",
			"the authors' model has as many; 11.207 without the linear layer", ""},
		{"IGC-L16M16+Ident.", "IGC-L16M16+Ident.", "11.329", "2.2", "19.97", "5.44", "29.40", "10.32",
			"the authors' model has as many; 11.441 without the linear layer",
			"2.27: cut, not rounded, it is the paper's"},
		{"IGC-L100M2+Ident.+2L", "IGC-L100M2+Ident.", "8.61", "1.3", "13.93", "2.75", "26.95", "8.92", "", ""},
	} {
		p := space.Plan{Layout: space.ImageNet, In: imagenet, Classes: 1000}
		add := func(what What, unit float64, paper, note string, measured bool) {
			c := cell(row.name, p, what, unit, paper)
			c.Network, c.Note = row.paper, note
			if measured {
				c.Data, c.Study = "ImageNet", "table6-imagenet"
			}
			cells = append(cells, c)
		}
		add(Params, 1e6, row.params, row.note, false)
		add(MultiplyAdds, 1e9, row.madds, row.maddsNote, false)
		add(TrainError, 1, row.train1, "", true)
		add(TrainTop5Error, 1, row.train5, notTop5, true)
		add(Error, 1, row.test1, "", true)
		add(Top5Error, 1, row.test5, notTop5, true)
	}
	return cells
}

func table7() (cells []Cell) {
	for _, row := range []struct{ name, params, cifar10, cifar100, svhn string }{
		{"IGC-L16M32", "17.7", "3.37", "19.31", "1.63"},
		{"IGC-L450M2", "19.3", "3.25", "19.25", ""},
		{"IGC-L32M26", "24.1", "3.31", "18.75", "1.56"},
	} {
		p := space.Plan{Layout: space.Stages, Depth: 20, In: cifar, Classes: 100}
		cells = append(cells, cell(row.name, p, Params, 1e6, row.params))
		for _, e := range []struct{ study, data, text string }{
			{"table7-cifar10", "CIFAR-10", row.cifar10}, {"table7-cifar100", "CIFAR-100", row.cifar100}, {"table7-svhn",
				"SVHN", row.svhn},
		} {
			if e.text != "" {
				c := cell(row.name, p, Error, 1, e.text)
				c.Study, c.Data = e.study, e.data
				cells = append(cells, c)
			}
		}
	}
	return cells
}

func fig3(study string, printed []string, rows []table1Row) (cells []Cell) {
	for i, row := range rows {
		c := cell("IGC-"+row.pair.String(), space.Plan{Layout: space.Flat, Depth: 8, In: cifar, Classes: 100}, Accuracy,
			1, printed[i])
		c.Study, c.Data = study, "CIFAR-100"
		cells = append(cells, c)
	}
	return cells
}

// Computed returns what we compute for a cell, in the paper's units and with as many digits as it prints. It returns
// false for a cell that is measured.
func (c Cell) Computed() (text string, value float64, ok bool) {
	if c.Study != "" {
		return "", 0, false
	}
	n, err := c.System.Network(c.Plan)
	if err != nil {
		panic(err) // the tables are constants
	}
	switch c.What {
	case Structure:
		return structure(n, int(c.Unit)), 0, true
	case Width:
		value = float64(c.System.Pair().Width())
	case BlockParams:
		value = float64(c.System.Pair().Params(9))
	case Params:
		value = float64(n.Params())
	case MultiplyAdds:
		value = float64(n.MultiplyAdds())
	}
	value /= c.Unit
	return strconv.FormatFloat(value, 'f', decimals(c.Paper), 64), value, true
}

// decimals returns how many digits follow the point of the first number.
func decimals(text string) int {
	number, _, _ := strings.Cut(text, " ")
	_, fraction, _ := strings.Cut(number, ".")
	return len(fraction)
}

// structure describes the second block of stage i and the size of its output.
func structure(n space.Network, i int) string {
	var blocks []space.Layer
	for _, l := range n.Layers[1:] {
		if l.Kind == space.Conv || l.Kind == space.IGC {
			blocks = append(blocks, l)
		}
	}
	l := blocks[i*len(blocks)/3+1]
	return fmt.Sprintf("%d×%d: %v", l.Out.H, l.Out.W, l)
}
