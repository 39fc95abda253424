package posterior

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// plane returns networks at the points of a grid of two features, and results of a few of them. The
// features have the mean 0 and the deviation 1.
func plane() (x [][]float64, results []Result) {
	const rows, columns = 6, 10
	for i := range rows {
		for j := range columns {
			x = append(x, []float64{(float64(i) - 2.5) / 1.708, (float64(j) - 4.5) / 2.872})
		}
	}
	random := rand.New(rand.NewPCG(3, 0))
	for n := range 25 {
		i := random.IntN(len(x))
		p := x[i]
		score := 60 - 2*p[0]*p[0] - p[1]*p[1] + 0.5*p[0]*p[1] + 0.3*math.Sin(3*p[0]) + 0.6*random.NormFloat64()
		results = append(results, Result{Network: i, Seed: n % 4, Score: score})
	}
	return x, results
}

// prior returns the covariance of the means under fixed hyper-parameters.
func prior(x [][]float64, bump, length, nugget float64) *mat.SymDense {
	q := quadratic(x)
	c := mat.NewSymDense(len(x), nil)
	for i := range x {
		for j := range i + 1 {
			d := floats.Distance(x[i], x[j], 2)
			v := levelScale*levelScale + bump*bump*math.Exp(-d*d/(2*length*length)) +
				quadraticScale*quadraticScale*floats.Dot(q.RawRowView(i), q.RawRowView(j))
			if i == j {
				v += nugget * nugget
			}
			c.SetSym(i, j, v)
		}
	}
	return c
}

// TestSurface compares the draws with the formulas of Gaussian process regression (Rasmussen &
// Williams, 2006, Eq. 2.25 and 2.26), mixed over the hyper-parameters, for all networks, of which
// most were never trained.
func TestSurface(t *testing.T) {
	t.Parallel()
	x, results := plane()
	k := len(x)
	offset := 0.
	for _, r := range results {
		offset += r.Score / float64(len(results))
	}
	shape := sigmaShape + float64(len(results))/2
	type answer struct {
		mean, variance []float64
		log            float64
	}
	var parts []answer
	highest := math.Inf(-1)
	for _, length := range bumpLengths {
		for _, bump := range bumps {
			for _, nugget := range ownNuggets {
				c := prior(x, bump, length, nugget)
				b := newTextbook(centred(results), k, surfaceSeeds)
				var s, cross, known mat.Dense
				s.Product(b.h, c, b.h.T())
				s.Add(&s, b.v)
				inv := inverse(t, &s)
				cross.Mul(c, b.h.T())
				var w, mean mat.VecDense
				w.MulVec(inv, b.y)
				mean.MulVec(&cross, &w)
				known.Product(&cross, inv, cross.T())
				rate := sigmaShape*sigmaScale*sigmaScale + mat.Dot(b.y, &w)/2
				a := answer{log: -logAbsDet(&s)/2 - shape*math.Log(rate)}
				p := surfacePart{covariance: &cross}
				p.weigh(results, b.y, shape)
				near(t, "the rate", p.rate, rate, 1e-6)
				near(t, "the logarithm of a weight", p.log, a.log, 1e-6)
				for i := range k {
					a.mean = append(a.mean, offset+mean.AtVec(i))
					a.variance = append(a.variance, rate/(shape-1)*(c.At(i, i)-known.At(i, i)))
				}
				parts, highest = append(parts, a), max(highest, a.log)
			}
		}
	}
	total := 0.
	for _, a := range parts {
		total += math.Exp(a.log - highest)
	}
	post := NewSurface(x).Given(results)
	ratio := 0.
	for i := range k {
		var mean, square float64
		for _, a := range parts {
			w := math.Exp(a.log-highest) / total
			mean += w * a.mean[i]
			square += w * (a.variance[i] + a.mean[i]*a.mean[i])
		}
		sd := math.Sqrt(square - mean*mean)
		draws := make([]float64, len(post.Draws))
		for d, draw := range post.Draws {
			draws[d] = draw[i]
		}
		got, gotSD := stat.MeanStdDev(draws, nil)
		if limit := 4 * sd / math.Sqrt(surfaceDraws); math.Abs(got-mean) > limit {
			t.Errorf("network %d has the mean %.3f, want %.3f ± %.3f", i, got, mean, limit)
		}
		ratio += gotSD / sd / float64(k)
	}
	if math.Abs(ratio-1) > 0.1 {
		t.Errorf("the deviations of the draws are %.3f of what they should be", ratio)
	}
}

// TestSurfaceBands draws means from the prior and checks that they are where the posterior says.
func TestSurfaceBands(t *testing.T) {
	t.Parallel()
	const truths, sigma = 100, 0.6
	x, _ := plane()
	model := NewSurface(x)
	within, all := 0, 0
	for truth := range truths {
		random := rand.New(rand.NewPCG(uint64(truth), 9))
		normal := func(n int) *mat.VecDense {
			v := mat.NewVecDense(n, nil)
			for i := range n {
				v.SetVec(i, sigma*random.NormFloat64())
			}
			return v
		}
		var chol mat.Cholesky
		if !chol.Factorize(prior(x, bumps[truth%2], bumpLengths[truth/2%2], ownNuggets[truth/4%2])) {
			t.Fatal("the covariance is not positive definite")
		}
		var root mat.TriDense
		chol.LTo(&root)
		var means mat.VecDense
		means.MulVec(&root, normal(len(x)))
		seeds := normal(4)
		var results []Result
		for n := range 25 {
			i := random.IntN(len(x))
			score := means.AtVec(i) + math.Sqrt(surfaceSeeds)*seeds.AtVec(n%4) + sigma*random.NormFloat64()
			results = append(results, Result{i, n % 4, score})
		}
		bands, _ := model.Given(results).Bands(0.9)
		for i, b := range bands {
			all++
			if b.Low <= means.AtVec(i) && means.AtVec(i) <= b.High {
				within++
			}
		}
	}
	if share := float64(within) / float64(all); math.Abs(share-0.9) > 0.03 {
		t.Errorf("%.3f of the means are in their band, want 0.9", share)
	}
}

// many are 505 networks at points of two features, and 100 results.
func many() (x [][]float64, results []Result) {
	random := rand.New(rand.NewPCG(1, 0))
	for range 505 {
		x = append(x, []float64{random.NormFloat64(), random.NormFloat64()})
	}
	for n := range 100 {
		i := random.IntN(len(x))
		results = append(results, Result{i, n % 3, 60 - x[i][0]*x[i][0] + 0.6*random.NormFloat64()})
	}
	return x, results
}

func BenchmarkSurface(b *testing.B) {
	x, results := many()
	m := NewSurface(x)
	for b.Loop() {
		m.Given(results)
	}
}
