package report

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"igcsearch/space"
)

// Pairs are the pairs of a budget.
type Pairs struct {
	Budget space.Budget
	List   []space.Pair
	Within string // the tolerance as people write it
}

// pairRow is one pair as csv and json print it.
type pairRow struct {
	L      int `json:"L"`
	M      int `json:"M"`
	Width  int `json:"width"`
	Params int `json:"params"`
	// ErrorPercent is 100·(params/T − 1), to three decimals.
	ErrorPercent float64 `json:"error_percent"`
}

// Print writes the pairs in one of the formats table, csv and json.
func (p Pairs) Print(stdout io.Writer, format string) error {
	rows, cells := []pairRow{}, [][]string{}
	for _, pair := range p.List {
		r := pairRow{pair.L, pair.M, pair.Width(), p.Budget.BlockParams(pair), errorPercent(p.Budget.Error(pair))}
		rows = append(rows, r)
		cells = append(cells, []string{strconv.Itoa(r.L), strconv.Itoa(r.M), strconv.Itoa(r.Width),
			strconv.Itoa(r.Params),
			decimals3(r.ErrorPercent)})
	}
	switch format {
	case "csv":
		return CSV(stdout, []string{"L", "M", "width", "params", "error_percent"}, cells)
	case "json":
		return JSON(stdout, rows)
	}
	b := p.Budget
	text := fmt.Sprintf("%s within %s of %s.\n", Count(len(rows), "pair"), p.Within, Count(b.Params, "parameter"))
	if b.Variant == "" {
		l, m := space.WidestPoint(b.Params, b.Kernel)
		text += fmt.Sprintf("The width is at most %.1f, near L = %.1f, M = %.1f.\n",
			space.WidthBound(2, float64(b.Params), float64(b.Kernel)), l, m)
	}
	_, err := fmt.Fprintf(stdout, "%s\n%s", tableOf([]string{"L", "M", "width", "params", "error (%)"}, cells), text)
	return err
}

// Networks are the networks of a budget.
type Networks struct {
	Budget interface {
		// Cost counts what the budget limits: the network, or one of its blocks.
		Cost(s space.System) (params int, multiplyAdds int64, err error)
		Error(params int, multiplyAdds int64) float64
		// String describes the budget: "4672 parameters of a block".
		String() string
	}
	List   []space.System // in the order to print
	Top    int            // how many to print at most
	Within string         // the tolerance as people write it
	// Bound is the bound of the width of a block, or 0 for a budget of the whole network.
	Bound float64
}

// networkRow is one network as csv and json print it.
type networkRow struct {
	Network      string  `json:"network"`
	Width        int     `json:"width"` // of the first stage
	Params       int     `json:"params"`
	MultiplyAdds int64   `json:"multiply_adds"`
	ErrorPercent float64 `json:"error_percent"` // 100·(count/budget − 1), to three decimals
}

// Print writes the networks in one of the formats table, csv and json.
func (n Networks) Print(stdout io.Writer, format string) error {
	rows, cells := []networkRow{}, [][]string{}
	for _, s := range n.List[:min(n.Top, len(n.List))] {
		params, multiplyAdds, err := n.Budget.Cost(s)
		if err != nil {
			return err
		}
		r := networkRow{s.String(), s.Width(), params, multiplyAdds, errorPercent(n.Budget.Error(params, multiplyAdds))}
		rows = append(rows, r)
		cells = append(cells, []string{r.Network, strconv.Itoa(r.Width), strconv.Itoa(r.Params),
			strconv.FormatInt(r.MultiplyAdds, 10), decimals3(r.ErrorPercent)})
	}
	switch format {
	case "csv":
		return CSV(stdout, []string{"network", "width", "params", "multiply_adds", "error_percent"}, cells)
	case "json":
		return JSON(stdout, rows)
	}
	text := fmt.Sprintf("%d of %s within %s of %s.\n", len(rows), Count(len(n.List), "network"), n.Within, n.Budget)
	if n.Bound > 0 {
		text += fmt.Sprintf("Blocks that keep to the budget are at most %.1f channels wide.\n", n.Bound)
	}
	_, err := fmt.Fprintf(stdout, "%s\n%s",
		tableOf([]string{"<network", "width", "params", "multiply–adds", "error (%)"}, cells), text)
	return err
}

// errorPercent is an error in percent, to three decimals.
func errorPercent(e float64) float64 { return math.Round(1e5*e)/1e3 + 0 } // + 0: never −0

func decimals3(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
