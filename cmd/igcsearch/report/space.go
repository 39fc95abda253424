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

// StagedNetworks are the networks of a budget that have partitions for each stage.
type StagedNetworks struct {
	Budget space.StageBudget
	List   []space.System // the nearest first
	Top    int            // how many to print at most
	Within string         // the tolerance as people write it
}

// stagedRow is one network as csv and json print it.
type stagedRow struct {
	Network      string  `json:"network"`
	Width        int     `json:"width"` // of the first stage
	Params       int     `json:"params"`
	MultiplyAdds int64   `json:"multiply_adds"`
	ErrorPercent float64 `json:"error_percent"` // 100·(count/budget − 1), to three decimals
}

// Print writes the networks in one of the formats table, csv and json.
func (n StagedNetworks) Print(stdout io.Writer, format string) error {
	rows, cells := []stagedRow{}, [][]string{}
	for _, s := range n.List[:min(n.Top, len(n.List))] {
		network, err := s.Network(n.Budget.Plan)
		if err != nil {
			return err
		}
		r := stagedRow{s.String(), s.Pair().Width(), network.Params(), network.MultiplyAdds(),
			errorPercent(n.Budget.Error(network))}
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
	budget := Count(n.Budget.Params, "parameter")
	if n.Budget.MultiplyAdds > 0 {
		budget = Count(int(n.Budget.MultiplyAdds), "multiply–add")
	}
	_, err := fmt.Fprintf(stdout, "%s\n%d of %s within %s of %s.\n",
		tableOf([]string{"<network", "width", "params", "multiply–adds", "error (%)"}, cells),
		len(rows), Count(len(n.List), "network"), n.Within, budget)
	return err
}

// errorPercent is an error in percent, to three decimals.
func errorPercent(e float64) float64 { return math.Round(1e5*e)/1e3 + 0 } // + 0: never −0

func decimals3(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
