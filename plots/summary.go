package plots

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
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

// summary is what is drawn of the values of one point. For n = 1 there is no
// bar, and low and high are the mean.
type summary struct {
	n               int
	mean, low, high float64
}

// summarize needs at least one value; none is below 0 or above most, and the bar
// ends there too.
func summarize(values []float64, bar Bar, most float64) summary {
	n := len(values)
	s := summary{n: n, mean: stat.Mean(values, nil)}
	s.low, s.high = s.mean, s.mean
	if n < 2 {
		return s
	}
	half := 0.
	switch std := stat.StdDev(values, nil); bar {
	case "", Std:
		half = std
	case SEM:
		half = std / math.Sqrt(float64(n))
	case CI95:
		half = studentT95(n-1) * std / math.Sqrt(float64(n))
	case MinMax:
		s.low, s.high = slices.Min(values), slices.Max(values)
		return s
	}
	s.low, s.high = max(0, s.mean-half), min(most, s.mean+half)
	return s
}

// studentT95 is the two-sided 95 % quantile of Student's t.
func studentT95(degrees int) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(degrees)}.Quantile(0.975)
}

// note says in words what the points and bars are: "mean ± std, n = 5", with
// the range of n where it varies.
func note(sums []summary, bar Bar) string {
	low, high := sums[0].n, sums[0].n
	for _, s := range sums {
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
