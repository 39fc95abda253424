package analysis

import (
	"math"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Tuning is the result of Tune: what the scores of networks say that were trained at several values
// of a setting. Networks and values are numbered from 0.
type Tuning struct {
	Choice
	// Cells are the findings of all samples, those of a network one after the other: Cell gives
	// their index.
	Cells  Findings
	Values int
	// Gains compares each network at its own best value with the same network at the common value.
	// Its Holm is corrected for the number of networks. Where there is no choice, and where both
	// values are the same, the comparison is of equal samples and not tested.
	Gains []Comparison
	// Interaction tests whether the differences between networks depend on the value.
	Interaction Interaction
	// Reversal is the most significant case in which two networks change places, and Reversed says
	// that it is significant.
	Reversal Reversal
	Reversed bool
}

// Choice says at which value each network is the best.
type Choice struct {
	// Own is the best value of each network, or −1 if it has no score.
	Own []int
	// Common is the value that is the best on average over the networks, or −1 if there is no score.
	// Only values at which the most networks have a score take part.
	Common int
}

// Choose chooses the values by the mean scores of samples, which are indexed by network and value.
// It prefers samples most of whose trials did not diverge. Of equal means the first is chosen.
func Choose(samples [][]Sample) Choice {
	c := Choice{Own: make([]int, len(samples)), Common: -1}
	usable := func(s Sample) bool { return len(s.Scores) > 0 && !s.MostDiverged() }
	values := 0
	for i, row := range samples {
		values = max(values, len(row))
		c.Own[i] = -1
		for j, s := range row {
			if len(s.Scores) == 0 {
				continue
			}
			k := c.Own[i]
			switch {
			case k < 0 || usable(s) && !usable(row[k]):
				c.Own[i] = j
			case usable(s) == usable(row[k]) && s.mean() > row[k].mean():
				c.Own[i] = j
			}
		}
	}
	most, best := 0, math.Inf(-1)
	for j := range values {
		n, sum := 0, 0.
		for _, row := range samples {
			if usable(row[j]) {
				n++
				sum += row[j].mean()
			}
		}
		if n > most || n == most && n > 0 && sum/float64(n) > best {
			c.Common, most, best = j, n, sum/float64(n)
		}
	}
	return c
}

func (s Sample) mean() float64 { return stat.Mean(percents(s.Scores), nil) }

// Interaction is a test of the hypothesis that each value changes the accuracy of all networks by
// the same number of points.
type Interaction struct {
	// Test is AdditiveTest, the F test of the analysis of variance with the seeds as blocks, if the
	// spreads of the samples may be pooled. Otherwise it is PairedTest: paired t tests, over common
	// seeds, of how much the lead of one network over another differs between two values; P is the
	// smallest of them, corrected by Holm for their number. It is Untested if there are too few
	// scores; P is NaN then.
	Test Test
	P    float64
	// F and its degrees of freedom are those of AdditiveTest.
	F                float64
	Between, Degrees int
	Contrasts        int // the number of t tests of PairedTest
}

// Reversal is a case in which network A leads network B at one value and is behind at another. P is
// the larger of the two p values, each corrected by Holm for the comparisons of all networks at all
// values, or NaN if no two networks change places.
type Reversal struct {
	A, B           int // networks
	Ahead, Behind  int // the values at which A leads, and is behind
	Lead, Deficit  Comparison
	P              float64
	Places, Tested int // how many couples of networks change places between two values; all comparisons
}

// Tune says how the accuracy of networks depends on the value of a setting. samples are indexed by
// network and value, each network with the same values. choice says at which values the networks are
// compared; it may come from other scores.
func Tune(samples [][]Sample, choice Choice) Tuning {
	t := Tuning{Choice: choice}
	var cells []Sample
	for _, row := range samples {
		t.Values = len(row)
		cells = append(cells, row...)
	}
	t.Cells = Analyze(cells)
	if t.Cells.Best < 0 {
		return t
	}
	for i, own := range choice.Own {
		c := Comparison{A: -1, B: -1, Difference: math.NaN(), Half: math.NaN(), P: math.NaN(), Holm: math.NaN()}
		if own >= 0 && choice.Common >= 0 && len(samples[i][choice.Common].Scores) > 0 {
			c = t.Cells.Compare(t.Cell(i, own), t.Cell(i, choice.Common))
		}
		t.Gains = append(t.Gains, c)
	}
	Correct(t.Gains)
	t.Interaction = t.interaction(samples)
	t.Reversal = t.reversal(len(samples))
	t.Reversed = t.Reversal.P <= Alpha
	return t
}

// Cell returns the index in Cells of the sample of a network at a value.
func (t Tuning) Cell(network, value int) int { return network*t.Values + value }

// interaction tests for an interaction of network and value.
func (t Tuning) interaction(samples [][]Sample) Interaction {
	if t.Cells.Pooled {
		return t.varianceTest(samples)
	}
	test := Interaction{P: math.NaN(), F: math.NaN()}
	var p []float64
	for i := range samples {
		for k := range i {
			for v := range t.Values {
				for u := range v {
					if _, _, x := PairedT(t.contrast(i, k, v, u)); !math.IsNaN(x) {
						p = append(p, x)
					}
				}
			}
		}
	}
	if test.Contrasts = len(p); len(p) > 0 {
		test.Test, test.P = PairedTest, 1
		for _, x := range Holm(p) {
			test.P = min(test.P, x)
		}
	}
	return test
}

// contrast returns, for each seed that all four samples have, the lead of network i over network k
// at the value v minus that at the value u.
func (t Tuning) contrast(i, k, v, u int) (d []float64) {
	score := func(network, value, seed int) float64 {
		for _, s := range t.Cells.Samples[t.Cell(network, value)].Scores {
			if s.Seed == seed {
				return s.Percent
			}
		}
		return math.NaN()
	}
	for _, s := range t.Cells.Samples[t.Cell(i, v)].Scores {
		x := s.Percent - score(k, v, s.Seed) - score(i, u, s.Seed) + score(k, u, s.Seed)
		if !math.IsNaN(x) {
			d = append(d, x)
		}
	}
	return d
}

// varianceTest is the F test of the model network × value + seed against network + value + seed. It
// compares the sums of the squared residuals of both fits, so that samples may lack seeds.
func (t Tuning) varianceTest(samples [][]Sample) Interaction {
	test := Interaction{P: math.NaN(), F: math.NaN(), Degrees: t.Cells.Model.Degrees}
	squares, degrees := fitWithout(samples)
	test.Between = degrees - test.Degrees
	if test.Between < 1 || test.Degrees < 1 || isNoise(t.Cells.Model.Spread(), 100) {
		return test
	}
	spread := t.Cells.Model.Squares / float64(test.Degrees)
	test.Test = AdditiveTest
	test.F = max(0, squares-t.Cells.Model.Squares) / float64(test.Between) / spread
	test.P = distuv.F{D1: float64(test.Between), D2: float64(test.Degrees)}.Survival(test.F)
	return test
}

// fitWithout fits network + value + seed, without interaction, and returns the sum of the squared
// residuals and its degrees of freedom.
func fitWithout(samples [][]Sample) (squares float64, degrees int) {
	column := map[int]int{} // of a seed
	values := 0
	var scores []float64
	var where [][3]int // network, value, seed
	for i, row := range samples {
		values = max(values, len(row))
		for j, sample := range row {
			for _, s := range sample.Scores {
				if _, known := column[s.Seed]; !known {
					column[s.Seed] = len(column)
				}
				scores, where = append(scores, s.Percent), append(where, [3]int{i, j, column[s.Seed]})
			}
		}
	}
	design := mat.NewDense(len(scores), len(samples)+values+len(column), nil)
	for n, at := range where {
		design.Set(n, at[0], 1)
		design.Set(n, len(samples)+at[1], 1)
		design.Set(n, len(samples)+values+at[2], 1)
	}
	var svd mat.SVD
	if !svd.Factorize(design, mat.SVDThin) {
		panic("analysis: the singular values of a matrix were not found")
	}
	// The columns are dependent: those of all networks add up to those of all seeds.
	rank := svd.Rank(1e-9)
	y := mat.NewDense(len(scores), 1, scores)
	var effects, fitted mat.Dense
	svd.SolveTo(&effects, y, rank)
	fitted.Mul(design, &effects)
	for n, score := range scores {
		rest := score - fitted.At(n, 0)
		squares += rest * rest
	}
	return squares, len(scores) - rank
}

// reversal returns the most significant case in which two networks change places.
func (t Tuning) reversal(networks int) Reversal {
	type pair struct{ network, rival int }
	var pairs []pair
	var list []Comparison // those of a pair one after the other, by value
	for i := range networks {
		for k := range i {
			pairs = append(pairs, pair{i, k})
			for v := range t.Values {
				list = append(list, t.Cells.Compare(t.Cell(i, v), t.Cell(k, v)))
			}
		}
	}
	Correct(list)
	best := Reversal{P: math.NaN()}
	for _, c := range list {
		if c.Test != Untested {
			best.Tested++
		}
	}
	for n, p := range pairs {
		of := list[n*t.Values : (n+1)*t.Values]
		places := false
		for v, x := range of {
			for u, y := range of {
				if !(x.Difference > 0 && y.Difference < 0) { // a difference may be NaN
					continue
				}
				places = true
				if larger := max(x.Holm, y.Holm); !math.IsNaN(larger) && !(larger >= best.P) {
					best.A, best.B, best.Ahead, best.Behind = p.network, p.rival, v, u
					best.Lead, best.Deficit, best.P = x, y, larger
				}
			}
		}
		if places {
			best.Places++
		}
	}
	return best
}
