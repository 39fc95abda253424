package plots

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"igcsearch/search/analysis"
)

// Bar says what the error bars and bands around a mean are. "" is Std.
type Bar string

const (
	// Std is the sample standard deviation, with n − 1 in the denominator.
	Std Bar = "std"
	// SEM is the standard error of the mean, Std/√n.
	SEM Bar = "sem"
	// CI95 is the 95 % confidence interval of the mean by Student's t.
	CI95 Bar = "ci95"
	// MinMax runs from the smallest to the largest value.
	MinMax Bar = "minmax"
)

func (b Bar) validate() error {
	switch b {
	case "", Std, SEM, CI95, MinMax:
		return nil
	}
	return fmt.Errorf("bar %q is unknown: want one of %s, %s, %s, %s", b, Std, SEM, CI95, MinMax)
}

// summary describes the values of one point, which stands at x on the axis. For n = 1 there is no bar, and low and
// high are the mean.
type summary struct {
	x               float64
	n               int
	mean, low, high float64
}

// summarize needs at least one value. The values are between 0 and most, and the bar is cut to that range.
func summarize(x float64, values []float64, bar Bar, most float64) summary {
	of := analysis.Summarize(values)
	s := summary{x: x, n: of.N, mean: of.Mean}
	s.low, s.high = s.mean, s.mean
	if s.n < 2 {
		return s
	}
	half := of.Std
	switch bar {
	case SEM:
		half /= math.Sqrt(float64(s.n))
	case CI95:
		half = of.High - of.Mean
	case MinMax:
		s.low, s.high = slices.Min(values), slices.Max(values)
		return s
	}
	s.low, s.high = max(0, s.mean-half), min(most, s.mean+half)
	return s
}

// fields are the columns mean, low, high and bar of a table.
func (s summary) fields(bar Bar) []string {
	list := []string{number(s.mean), "", "", string(cmp.Or(bar, Std))}
	if s.n > 1 {
		list[1], list[2] = number(s.low), number(s.high)
	}
	return list
}

// number has 6 decimals: accuracies are ratios of counts, and further digits are rounding errors of their sums.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}

func integers(list ...int) (texts []string) {
	for _, v := range list {
		texts = append(texts, strconv.Itoa(v))
	}
	return texts
}

func zeroOrOne(yes bool) string {
	if yes {
		return "1"
	}
	return "0"
}

// summaries are the points of a series.
type summaries []summary

// means are the points of a line or of markers.
func (list summaries) means() (xys plotter.XYs) {
	for _, s := range list {
		xys = append(xys, plotter.XY{X: s.x, Y: s.mean})
	}
	return xys
}

// bars are the error bars, in the colour of a look.
func (list summaries) bars(l look) *plotter.YErrorBars {
	b := &plotter.YErrorBars{LineStyle: l.line, CapWidth: capWidth}
	b.Width, b.Dashes = barWidth, nil
	for _, s := range list {
		if s.n > 1 {
			b.XYs = append(b.XYs, plotter.XY{X: s.x, Y: s.mean})
			b.YErrors = append(b.YErrors, struct{ Low, High float64 }{s.mean - s.low, s.high - s.mean})
		}
	}
	return b
}

// band is the area between the ends of the bars, in a light shade.
func (list summaries) band(l look) *plotter.Polygon {
	var lows, highs plotter.XYs
	for _, s := range list {
		lows, highs = append(lows, plotter.XY{X: s.x, Y: s.low}), append(highs, plotter.XY{X: s.x, Y: s.high})
	}
	slices.Reverse(lows)
	return &plotter.Polygon{XYs: []plotter.XYs{append(highs, lows...)}, Color: blend(l.line.Color, 0.22)}
}

// edges are the ends of the band as lines, which show where the band of another series covers it.
func (list summaries) edges(l look) []plot.Plotter {
	style := draw.LineStyle{Color: blend(l.line.Color, 0.45), Width: 0.3}
	var lows, highs plotter.XYs
	for _, s := range list {
		lows, highs = append(lows, plotter.XY{X: s.x, Y: s.low}), append(highs, plotter.XY{X: s.x, Y: s.high})
	}
	return []plot.Plotter{line(style, lows), line(style, highs)}
}

// note says in words what the points and bars are: "mean ± std, n = 5", with the range of n where it varies.
func (list summaries) note(bar Bar) string {
	low, high := list[0].n, list[0].n
	for _, s := range list {
		low, high = min(low, s.n), max(high, s.n)
	}
	n := fmt.Sprintf("n = %d", low)
	if low < high {
		n = fmt.Sprintf("n = %d–%d", low, high)
	}
	if high == 1 {
		return n
	}
	switch bar {
	case SEM:
		return "mean ± sem, " + n
	case CI95:
		return "mean, 95 % CI, " + n
	case MinMax:
		return "mean, min–max, " + n
	}
	return "mean ± std, " + n
}

// checkValues refuses what cannot be drawn, NaN and infinities included.
func checkValues(values []float64, low, high float64) error {
	for _, v := range values {
		if !(v >= low && v <= high) || math.IsInf(v, 0) {
			if math.IsInf(high, 1) {
				return fmt.Errorf("%g, want a finite number, at least %g", v, low)
			}
			return fmt.Errorf("%g, want %g to %g", v, low, high)
		}
	}
	return nil
}
