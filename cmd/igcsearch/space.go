package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"igcsearch/space"
)

type spaceOptions struct {
	budget, kernel positive
	tolerance      fraction
	all            bool
	format         string
}

func newSpaceCommand() *cobra.Command {
	o := spaceOptions{kernel: 9, tolerance: 0.024}
	cmd := &cobra.Command{
		Use:   "space --budget T",
		Short: "List the pairs (L, M) whose blocks have about T parameters",
		Long: `space lists the pairs (L, M) whose blocks have about T parameters:
S·L·M² + M·L² of them, for a primary kernel of S positions. Of each M it shows
the L nearest to the budget, if that is within the tolerance.

In a table it also shows the upper bound of the width, (T/(2√S))^(2/3), and the
point L = M·S where it is reached.`,
		Example: `  # the nine pairs of the paper's Table 1 (i)
  igcsearch space --budget 4672

  # every pair within 1 %, for other programs
  igcsearch space --budget 17536 --tolerance 1% --all --format csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runSpace(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().Var(&o.budget, "budget", "parameters of one block, T")
	cmd.Flags().Var(&o.kernel, "kernel", "positions of the primary kernel, S; 9 is 3×3")
	cmd.Flags().Var(&o.tolerance, "tolerance", "largest deviation from the budget, like 2.4% or 0.024")
	cmd.Flags().BoolVar(&o.all, "all", false, "show every L within the tolerance, not only the nearest")
	addChoice(cmd, &o.format, "format", "how to print the pairs", "table", "csv", "json")
	cmd.Flag("budget").DefValue = ""
	return cmd
}

// spaceRow is one pair as csv and json print it.
type spaceRow struct {
	L      int `json:"L"`
	M      int `json:"M"`
	Width  int `json:"width"`
	Params int `json:"params"`
	// ErrorPercent is 100·(params/T − 1), to three decimals.
	ErrorPercent float64 `json:"error_percent"`
}

func (r spaceRow) fields() []string {
	return []string{strconv.Itoa(r.L), strconv.Itoa(r.M), strconv.Itoa(r.Width), strconv.Itoa(r.Params), strconv.FormatFloat(r.ErrorPercent, 'f', 3, 64)}
}

func runSpace(_ context.Context, o spaceOptions, stdout io.Writer) error {
	if o.budget == 0 {
		return usageError{errors.New("--budget is missing: how many parameters may a block have?")}
	}
	b := space.Budget{Params: int(o.budget), Kernel: int(o.kernel), Tolerance: float64(o.tolerance)}
	if err := b.Validate(); err != nil {
		return usageError{err}
	}
	list := b.Nearest()
	if o.all {
		list = b.All()
	}
	rows := []spaceRow{}
	for _, p := range list {
		e := math.Round(1e5*b.Error(p)) / 1e3
		rows = append(rows, spaceRow{p.L, p.M, p.Width(), p.Params(b.Kernel), e + 0}) // + 0: no −0
	}
	switch o.format {
	case "csv":
		w := csv.NewWriter(stdout)
		w.Write([]string{"L", "M", "width", "params", "error_percent"})
		for _, r := range rows {
			w.Write(r.fields())
		}
		w.Flush()
		return w.Error()
	case "json":
		return printJSON(stdout, rows)
	}
	t := newTable("L", "M", "width", "params", "error (%)")
	for _, r := range rows {
		t.add(r.fields()...)
	}
	l, m := space.WidestPoint(b.Params, b.Kernel)
	_, err := fmt.Fprintf(stdout, "%s\n%s within %v of %s.\nThe width is at most %.1f, near L = %.1f, M = %.1f.\n",
		t, count(len(rows), "pair"), &o.tolerance, count(b.Params, "parameter"), space.WidthBound(b.Params, b.Kernel), l, m)
	return err
}
