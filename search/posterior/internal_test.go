package posterior

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/integrate/quad"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"pgregory.net/rapid"
)

func TestConcaveShapes(t *testing.T) {
	t.Parallel()
	t.Run("a shape is concave, with the mean 0 and the deviation 1", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			x := rapid.SliceOfNDistinct(rapid.Float64Range(0, 8), 3, 12, rapid.ID[float64]).Draw(t, "x")
			order := append([]float64(nil), x...)
			at := make([]int, len(x))
			floats.Argsort(order, at)
			for n := range len(order) - 1 {
				if order[n+1]-order[n] < 1e-3 {
					t.Skip("two points are almost the same")
				}
			}
			for _, g := range concaveShapes(x, 60) {
				if mean, std := stat.PopMeanStdDev(g, nil); math.Abs(mean) > 1e-9 || math.Abs(std-1) > 1e-9 {
					t.Fatalf("mean %g, deviation %g", mean, std)
				}
				for n := range len(x) - 2 {
					a, b, c := at[n], at[n+1], at[n+2]
					w := (x[b] - x[a]) / (x[c] - x[a]) // b is between a and c
					if line := (1-w)*g[a] + w*g[c]; g[b] < line-1e-9 {
						t.Fatalf("at %g the shape is %g below the line from %g to %g", x[b], line-g[b], x[a], x[c])
					}
				}
			}
		})
	})
	t.Run("the peaks are spread evenly, and three in ten shapes are monotone", func(t *testing.T) {
		x := make([]float64, 101)
		floats.Span(x, 0, 1)
		const n = 1024
		var tenths [10]int
		monotones := 0
		for _, g := range concaveShapes(x, n) {
			peak := floats.MaxIdx(g)
			if peak == 0 || peak == 100 {
				monotones++
				continue
			}
			tenths[peak/10]++
		}
		// A peak that is so near to an end that its shape hardly falls there is monotone, too.
		if share := float64(monotones) / n; share < 0.3-1./n || share > 0.36 {
			t.Errorf("%.3f of the shapes are monotone, want 0.3", share)
		}
		for i, count := range tenths {
			if share := float64(count) / n; math.Abs(share-0.07) > 0.03 {
				t.Errorf("%.3f of the peaks are from %.1f on, want 0.07", share, float64(i)/10)
			}
		}
	})
}

// drawn are results of four networks, of which the seeds are incomplete: one has none.
func drawn() []Result {
	return []Result{{0, 0, 61.2}, {0, 1, 60.1}, {1, 0, 62.0}, {1, 2, 62.9}, {1, 7, 61.7}, {3, 1, 58.8}}
}

// textbook holds matrices of results: y are their scores, h says of which network each is, and v is
// the covariance of two scores beside that of the means, in units of σ².
type textbook struct {
	y    *mat.VecDense
	h, v *mat.Dense
}

func newTextbook(results []Result, networks int, seedVariance float64) textbook {
	n := len(results)
	b := textbook{mat.NewVecDense(n, nil), mat.NewDense(n, networks, nil), mat.NewDense(n, n, nil)}
	for i, r := range results {
		b.y.SetVec(i, r.Score)
		b.h.Set(i, r.Network, 1)
		for j, other := range results {
			if i == j {
				b.v.Set(i, j, 1)
			}
			if r.Seed == other.Seed {
				b.v.Set(i, j, b.v.At(i, j)+seedVariance)
			}
		}
	}
	return b
}

func inverse(t *testing.T, a mat.Matrix) *mat.Dense {
	t.Helper()
	var inv mat.Dense
	if err := inv.Inverse(a); err != nil && !isCondition(err) {
		t.Fatal(err)
	}
	return &inv
}

// ones returns a vector of ones.
func ones(n int) *mat.VecDense {
	v := mat.NewVecDense(n, nil)
	for i := range n {
		v.SetVec(i, 1)
	}
	return v
}

func logAbsDet(a mat.Matrix) float64 {
	v, _ := mat.LogDet(a)
	return v
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(1, math.Abs(want))) {
		t.Errorf("%s is %.9g, want %.9g", what, got, want)
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	for _, variance := range []float64{0, 0.5, 2} {
		const networks = 4
		e := evidenceOf(drawn(), networks, variance)
		b := newTextbook(drawn(), networks, variance)
		v := inverse(t, b.v)
		var precision mat.Dense
		precision.Product(b.h.T(), v, b.h)
		var linear, solved mat.VecDense
		solved.MulVec(v, b.y)
		linear.MulVec(b.h.T(), &solved)
		for i := range networks {
			near(t, "a linear term", e.linear[i], linear.AtVec(i), 1e-12)
			for j := range networks {
				near(t, "a precision", e.precision[i*networks+j], precision.At(i, j), 1e-12)
			}
		}
		near(t, "the square", e.square, mat.Dot(b.y, &solved), 1e-12)
		near(t, "the determinant", e.logDet, logAbsDet(b.v), 1e-12)
	}
}

// centred returns results with the mean score 0.
func centred(results []Result) []Result {
	mean := 0.
	for _, r := range results {
		mean += r.Score / float64(len(results))
	}
	list := append([]Result(nil), results...)
	for i := range list {
		list[i].Score -= mean
	}
	return list
}

// known is what the formulas of universal kriging say under fixed hyper-parameters.
type known struct {
	mean      *mat.VecDense // of the means of the networks
	variance  *mat.Dense    // their covariance, in units of σ²
	log, rate float64       // see part
}

// textbookProcesses returns what the formulas say for each process of processes.
func textbookProcesses(t *testing.T, x []float64, b textbook, shape float64) (list []known) {
	t.Helper()
	k := len(x)
	span := floats.Max(x) - floats.Min(x)
	for _, amplitude := range amplitudes {
		for _, rough := range roughness {
			few := lengths
			if rough.value == 1 {
				few = lengths[:1]
			}
			for _, length := range few {
				c := mat.NewDense(k, k, nil)
				c.Apply(func(i, j int, _ float64) float64 {
					d := (x[i] - x[j]) / span
					return math.Exp(-d * d / (2 * length * length))
				}, c)
				about := (float64(k) - mat.Sum(c)/float64(k)) / float64(k) // the variance about the mean of a curve
				c.Scale(amplitude*amplitude*(1-rough.value)/about, c)
				for i := range k {
					c.Set(i, i, c.At(i, i)+amplitude*amplitude*(rough.value+1e-8))
				}
				a := kriging(t, b, c, shape)
				a.log += math.Log(rough.weight / float64(len(few)*len(amplitudes)))
				list = append(list, a)
			}
		}
	}
	return list
}

// TestProcess compares the Gaussian processes with the textbook.
func TestProcess(t *testing.T) {
	t.Parallel()
	x := []float64{0, 1, 1.585, 4}
	k := len(x)
	results := centred(drawn())
	shape := sigmaShape + float64(len(results)-1)/2
	want := textbookProcesses(t, x, newTextbook(results, k, 0.5), shape)
	for at, p := range processes([][]float64{{0}, {1}, {1.585}, {4}}, roughness, 1) {
		got := p.given(evidenceOf(results, k, 0.5), shape)
		near(t, "the rate", got.rate, want[at].rate, 1e-5)
		near(t, "the logarithm of a weight", got.log, want[at].log, 1e-5)
		factor := mat.NewDense(k, k, nil)
		for i := range k {
			for j := i; j < k; j++ {
				factor.Set(i, j, got.process.factor.Data[i*got.process.factor.Stride+j])
			}
		}
		// The columns of the inverse factor have the covariance of the draws.
		root := inverse(t, factor)
		var covariance mat.Dense
		covariance.Mul(root, root.T())
		for i := range k {
			near(t, "a mean", got.process.mean[i], want[at].mean.AtVec(i), 1e-5)
			for j := range k {
				near(t, "a covariance", covariance.At(i, j), want[at].variance.At(i, j), 1e-5)
			}
		}
	}
}

// TestField compares the draws of all processes together with the textbook. One of the networks has
// no result.
func TestField(t *testing.T) {
	t.Parallel()
	x := []float64{0, 1, 1.585, 4}
	results := drawn()
	shape := sigmaShape + float64(len(results)-1)/2
	list := textbookProcesses(t, x, newTextbook(centred(results), len(x), 0.5), shape)
	post := NewField([][]float64{{0}, {1}, {1.585}, {4}}, Detail{draws: 16384, seeds: []float64{0.5}}).Given(results)
	highest := math.Inf(-1)
	for _, a := range list {
		highest = max(highest, a.log)
	}
	var total, sigma2 float64
	mean, square := make([]float64, len(x)), make([]float64, len(x))
	for _, a := range list {
		w := math.Exp(a.log - highest)
		total += w
		sigma2 += w * a.rate / (shape - 1)
		for i := range x {
			m := a.mean.AtVec(i)
			mean[i] += w * m
			square[i] += w * (a.rate/(shape-1)*a.variance.At(i, i) + m*m)
		}
	}
	near(t, "σ", post.Sigma, math.Sqrt(sigma2/total), 0.03)
	offset := results[0].Score - centred(results)[0].Score
	for i := range x {
		draws := make([]float64, len(post.Draws))
		for d, draw := range post.Draws {
			draws[d] = draw[i] - offset
		}
		got, gotSD := stat.MeanStdDev(draws, nil)
		m := mean[i] / total
		sd := math.Sqrt(square[i]/total - m*m)
		if math.Abs(got-m) > 0.03*sd {
			t.Errorf("network %d has the mean %.3f, want %.3f", i, got, m)
		}
		if math.Abs(gotSD/sd-1) > 0.05 {
			t.Errorf("network %d has the deviation %.3f, want %.3f", i, gotSD, sd)
		}
	}
}

// kriging returns the posterior for the covariance c of the means of the networks, by the formulas
// of universal kriging (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, Section
// 2.7). They invert the covariance of the results and estimate the constant by generalised least
// squares.
func kriging(t *testing.T, b textbook, c *mat.Dense, shape float64) known {
	t.Helper()
	n, networks := b.h.Dims()
	one, all := ones(n), ones(networks)
	var s, cross mat.Dense
	s.Product(b.h, c, b.h.T())
	s.Add(&s, b.v)
	cross.Mul(c, b.h.T())
	inv := inverse(t, &s)
	sum := mat.Inner(one, inv, one)
	level := mat.Inner(one, inv, b.y) / sum
	var left, solved mat.VecDense
	left.AddScaledVec(b.y, -level, one)
	solved.MulVec(inv, &left)
	mean, variance := new(mat.VecDense), new(mat.Dense)
	mean.MulVec(&cross, &solved)
	mean.AddScaledVec(mean, level, all)
	// Var θ = C − K·S⁻¹·Kᵀ + r·rᵀ/(1ᵀ·S⁻¹·1), r = 1 − K·S⁻¹·1
	var explained, towards mat.Dense
	explained.Product(&cross, inv, cross.T())
	variance.Sub(c, &explained)
	var r, w mat.VecDense
	w.MulVec(inv, one)
	r.MulVec(&cross, &w)
	r.SubVec(all, &r)
	towards.Outer(1/sum, &r, &r)
	variance.Add(variance, &towards)
	rate := sigmaShape*sigmaScale*sigmaScale + mat.Dot(&left, &solved)/2
	return known{mean, variance, -(logAbsDet(&s)+math.Log(sum))/2 - shape*math.Log(rate), rate}
}

// TestConcaveDraws compares the draws of a concave curve with a Gaussian process of the same
// covariance. The slope of these scores is so clear that it is hardly bounded by 0.
func TestConcaveDraws(t *testing.T) {
	t.Parallel()
	const networks, nugget, a = 4, 0.3, 6.
	g := []float64{0.1, 0.9, 0.6, -1.6}
	f := newField([][]float64{{0}, {1}, {1.585}, {4}}, Detail{draws: 8192, seeds: []float64{0.5}}, roughness,
		[][]float64{g})
	results := centred(drawn())
	for i := range results {
		results[i].Score *= 5
	}
	const shape = 3.
	c := mat.NewDense(networks, networks, nil)
	c.Outer(a*a, mat.NewVecDense(networks, g), mat.NewVecDense(networks, g))
	for i := range networks {
		c.Set(i, i, c.At(i, i)+nugget*nugget)
	}
	want := kriging(t, newTextbook(results, networks, 0.5), c, shape)
	p := f.concaveParts(evidenceOf(results, networks, 0.5), weighted{nugget, 1}, true, shape)[1]
	draws := mat.NewDense(len(f.normal), networks, nil)
	const sigma = 2
	for x := range f.normal {
		draws.SetRow(x, p.draw(f.normal[x], f.uniform[x][0], sigma))
	}
	var covariance mat.SymDense
	stat.CovarianceMatrix(&covariance, draws, nil)
	for i := range networks {
		near(t, "the mean of the draws", stat.Mean(mat.Col(nil, i, draws), nil), want.mean.AtVec(i), 0.01)
		for j := range networks {
			scale := math.Sqrt(want.variance.At(i, i) * want.variance.At(j, j))
			if got := covariance.At(i, j) / (sigma * sigma); math.Abs(got-want.variance.At(i, j)) > 0.03*scale {
				t.Errorf("the covariance of networks %d and %d is %.4f, want %.4f", i, j, got, want.variance.At(i, j))
			}
		}
	}
}

// TestConcaveParts compares the weights of concave curves with an integral over the slope. With the
// level and σ² integrated out, a slope s > 0 has the density (b + (Q(s) + s²/A²)/2)^−(shape + ½).
// Here b is the prior rate of σ², A the prior deviation of s, and Q(s) the square of the scores less
// s·g. The weights use a normal approximation, hence the tolerance.
func TestConcaveParts(t *testing.T) {
	t.Parallel()
	const networks = 4
	shapes := [][]float64{{-0.2, 0.9, 0.9, -1.6}, {1.5, 0.2, -0.4, -1.3}, {-1.5, -0.2, 0.4, 1.3}}
	f := newField([][]float64{{0}, {1}, {1.585}, {4}}, Quick, roughness, shapes)
	results := centred(drawn())
	shape := sigmaShape + float64(len(results)-1)/2
	above, _ := math.Lgamma(shape + 0.5)
	below, _ := math.Lgamma(shape) // the weights of all parts are without this factor
	gamma := above - below
	var got, want []float64
	for _, variance := range f.seeds {
		b := newTextbook(results, networks, variance)
		for _, nugget := range nuggets {
			for _, p := range f.concaveParts(evidenceOf(results, networks, variance), nugget, true, shape) {
				got = append(got, p.log)
			}
			var s mat.Dense
			s.Mul(b.h, b.h.T())
			s.Scale(nugget.value*nugget.value, &s)
			s.Add(&s, b.v)
			inv := inverse(t, &s)
			one := ones(len(results))
			var w mat.VecDense
			w.MulVec(inv, one)
			sum := mat.Dot(one, &w)
			var level, projected mat.Dense
			level.Outer(1/sum, &w, &w)
			projected.Sub(inv, &level)
			base := -(logAbsDet(&s) + math.Log(sum)) / 2
			for _, g := range shapes {
				var at mat.VecDense
				at.MulVec(b.h, mat.NewVecDense(networks, g))
				q0, q1, q2 := mat.Inner(b.y, &projected, b.y), mat.Inner(&at, &projected, b.y), mat.Inner(&at, &projected, &at)
				for _, a := range slopes {
					integral := quad.Fixed(func(s float64) float64 {
						q := q0 - 2*q1*s + q2*s*s + s*s/(a*a)
						return math.Pow(sigmaShape*sigmaScale*sigmaScale+q/2, -shape-0.5)
					}, 0, 60, 2000, nil, 0)
					prior := 0.5 * nugget.weight / float64(len(shapes)*len(slopes))
					want = append(want, base+gamma+math.Log(prior*2/(a*math.Sqrt(2*math.Pi))*integral))
				}
			}
		}
	}
	for i := range want {
		if share := math.Exp(got[i] - want[i]); math.Abs(share-1) > 0.01 {
			t.Errorf("part %d has %.4f of its weight", i, share)
		}
	}
}
