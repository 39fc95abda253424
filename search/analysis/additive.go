package analysis

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// Additive is the model score = effect of the sample + effect of the seed + noise, fitted by least
// squares. The noise has the same spread everywhere. A sample may lack some seeds: their effects
// are estimated from the samples that have them (the intrablock analysis of incomplete blocks:
// Yates, "Incomplete randomized blocks", Annals of Eugenics 7, 1936).
type Additive struct {
	// Effects are the effects of the samples, in percent. Two of them can be compared only if
	// Compare returns ok. The effect of a sample without scores is NaN.
	Effects []float64
	// Squares is the sum of the squared residuals. Its degrees of freedom are the number of scores
	// minus that of samples minus that of differences between seeds that can be estimated.
	Squares float64
	Degrees int
	table   table
	rests   []float64 // the part of Squares that belongs to each sample
}

// table says which samples have which seeds.
type table struct {
	columns   [][]int    // the seeds that each sample has, numbered from 0
	inverse   *mat.Dense // the Moore–Penrose inverse of the normal equations of the seeds
	component []int      // samples with equal numbers are connected by common seeds; −1 without scores
	degrees   int        // see Additive.Degrees
}

// FitAdditive fits the model to samples, at least one of which has a score.
func FitAdditive(samples []Sample) Additive {
	f := Additive{table: newTable(samples)}
	values := make([][]float64, len(samples))
	for i, sample := range samples {
		values[i] = percents(sample.Scores)
	}
	of := f.table.newFit()
	f.table.fit(values, of)
	f.Effects, f.rests = of.samples, of.rests
	f.Squares, f.Degrees = floats.Sum(f.rests), f.table.degrees
	return f
}

// newTable returns the table of samples.
func newTable(samples []Sample) table {
	column := map[int]int{}
	t := table{columns: make([][]int, len(samples)), component: make([]int, len(samples))}
	for i, sample := range samples {
		for _, s := range sample.Scores {
			if _, known := column[s.Seed]; !known {
				column[s.Seed] = len(column)
			}
			t.columns[i] = append(t.columns[i], column[s.Seed])
			t.degrees++
		}
		if len(sample.Scores) > 0 {
			t.degrees--
		}
	}
	// With the effects of the samples eliminated, the normal equations of the seeds remain.
	n := len(column)
	equations := mat.NewSymDense(n, nil)
	seeds := make([]int, n) // the component of each seed
	for i := range seeds {
		seeds[i] = i
	}
	for _, has := range t.columns {
		for _, r := range has {
			equations.SetSym(r, r, equations.At(r, r)+1)
			for _, c := range has {
				if c >= r {
					equations.SetSym(r, c, equations.At(r, c)-1/float64(len(has)))
				}
			}
			for i, old := 0, seeds[r]; i < n; i++ {
				if seeds[i] == old {
					seeds[i] = seeds[has[0]]
				}
			}
		}
	}
	for i, has := range t.columns {
		t.component[i] = -1
		if len(has) > 0 {
			t.component[i] = seeds[has[0]]
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(equations, true) {
		panic("analysis: the eigenvalues of a symmetric matrix were not found")
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	t.inverse = mat.NewDense(n, n, nil)
	for k, v := range eigen.Values(nil) {
		// Each component has one eigenvalue that is 0 except for rounding, because the same shift
		// of all its seeds is also a shift of all its samples.
		if v > 1e-9*float64(len(samples)) {
			t.degrees--
			x := vectors.ColView(k)
			t.inverse.RankOne(t.inverse, 1/v, x, x)
		}
	}
	return t
}

// fit is the result of table.fit. Its slices can be used for several fits.
type fit struct {
	samples, seeds []float64 // the effects
	rests          []float64 // the sum of the squared residuals of each sample
	right          []float64 // the right sides of the normal equations of the seeds
}

func (t table) newFit() fit {
	n, _ := t.inverse.Dims()
	return fit{make([]float64, len(t.columns)), make([]float64, n), make([]float64, len(t.columns)), make([]float64, n)}
}

// fit fits the model to the values of each sample and stores the result in f.
func (t table) fit(values [][]float64, f fit) {
	clear(f.right)
	for i, v := range values {
		sum := 0.
		for _, x := range v {
			sum += x
		}
		f.samples[i] = sum / float64(len(v)) // NaN without values
		for k, c := range t.columns[i] {
			f.right[c] += v[k] - f.samples[i]
		}
	}
	for r := range f.seeds {
		f.seeds[r] = floats.Dot(t.inverse.RawRowView(r), f.right)
	}
	for i, v := range values {
		for _, c := range t.columns[i] {
			f.samples[i] -= f.seeds[c] / float64(len(v))
		}
		f.rests[i] = 0
		for k, c := range t.columns[i] {
			rest := v[k] - f.samples[i] - f.seeds[c]
			f.rests[i] += rest * rest
		}
	}
}

// connected reports whether a chain of common seeds leads from sample i to sample j.
func (t table) connected(i, j int) bool {
	return t.component[i] >= 0 && t.component[i] == t.component[j]
}

// Spread returns the pooled standard deviation of the noise, in percent. It is NaN without a degree
// of freedom.
func (f Additive) Spread() float64 {
	if f.Degrees == 0 {
		return math.NaN()
	}
	return math.Sqrt(f.Squares / float64(f.Degrees))
}

// Compare returns the effect of sample i minus that of sample j, in points, and the standard error
// of this difference. ok is false if no chain of common seeds connects the two samples.
func (f Additive) Compare(i, j int) (difference, se float64, ok bool) {
	if !f.table.connected(i, j) {
		return math.NaN(), math.NaN(), false
	}
	n, _ := f.table.inverse.Dims()
	of := mat.NewVecDense(n, nil)
	factor := 0.
	for k, sample := range []int{i, j} {
		share := 1 / float64(len(f.table.columns[sample]))
		factor += share
		for _, c := range f.table.columns[sample] {
			of.SetVec(c, of.AtVec(c)+share*float64(1-2*k))
		}
	}
	factor += mat.Inner(of, f.table.inverse, of)
	return f.Effects[i] - f.Effects[j], f.Spread() * math.Sqrt(factor), true
}

// Spreads is the result of the test that the samples of an additive model have the same spread.
type Spreads struct {
	Sample int     // the sample with the largest residual variance, or −1 without a test
	Share  float64 // its share in the sum of all residual variances, in (0, 1]
	P      float64 // the probability of so large a share if all spreads are equal, or NaN
}

// spreadDraws is the number of tables that Spreads draws.
const spreadDraws = 1999

// Spreads tests the share of the largest variance (Cochran, "The distribution of the largest of a
// set of estimated variances as a fraction of their total", Annals of Eugenics 11, 1941). The
// distribution of this share is not tabulated for samples with different seeds. So Spreads draws it
// from tables of normal noise with the same seeds. Such a p keeps its level for any number of draws
// (Dwass, "Modified randomization tests for nonparametric hypotheses", The Annals of Mathematical
// Statistics 28, 1957). P is NaN if fewer than three samples have two scores. docs/analysis.md
// explains the choice of this test.
func (f Additive) Spreads() Spreads {
	out := Spreads{Sample: -1, Share: math.NaN(), P: math.NaN()}
	if f.Degrees == 0 || isNoise(f.Spread(), 100) {
		return out
	}
	out.Sample, out.Share = f.table.largest(f.rests)
	if f.table.several() < 3 {
		return out
	}
	larger := 1
	for _, share := range f.table.shares() {
		if share >= out.Share {
			larger++
		}
	}
	out.P = float64(larger) / (spreadDraws + 1)
	return out
}

// EqualSpreads reports whether Spreads().P is above SpreadAlpha. It is faster for a table that has
// been seen before, because it remembers the largest share that passes.
func (f Additive) EqualSpreads() bool {
	if f.Degrees == 0 || isNoise(f.Spread(), 100) || f.table.several() < 3 {
		return false
	}
	key := fmt.Sprint(f.table.columns)
	limit, known := largestShares.Load(key)
	if !known {
		// P is above SpreadAlpha if at least this number of draws are not smaller.
		const passing = SpreadAlpha * (spreadDraws + 1)
		limit = slices.Sorted(slices.Values(f.table.shares()))[int(spreadDraws-passing)]
		largestShares.Store(key, limit)
	}
	_, share := f.table.largest(f.rests)
	return share <= limit.(float64)
}

// largestShares has the largest share that passes the test of the spreads, by the columns of the
// table. A study has few tables, and each takes milliseconds to draw.
var largestShares sync.Map

// several returns the number of samples that have two scores or more.
func (t table) several() (n int) {
	for _, has := range t.columns {
		if len(has) > 1 {
			n++
		}
	}
	return n
}

// shares draws tables of normal noise and returns the share of the largest variance in each. The
// seed is fixed, so that the same scores have the same p.
func (t table) shares() []float64 {
	random := rand.New(rand.NewPCG(3, 4))
	values := make([][]float64, len(t.columns))
	for i, has := range t.columns {
		values[i] = make([]float64, len(has))
	}
	shares, of := make([]float64, spreadDraws), t.newFit()
	for draw := range shares {
		for _, v := range values {
			for k := range v {
				v[k] = random.NormFloat64()
			}
		}
		t.fit(values, of)
		_, shares[draw] = t.largest(of.rests)
	}
	return shares
}

// largest returns the sample with the largest residual variance, and its share in the sum of all.
func (t table) largest(rests []float64) (sample int, share float64) {
	sum, most := 0., math.Inf(-1)
	for i, has := range t.columns {
		if len(has) > 1 {
			v := rests[i] / float64(len(has)-1)
			if sum += v; v > most {
				sample, most = i, v
			}
		}
	}
	return sample, most / sum
}
