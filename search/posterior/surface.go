package posterior

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat"
)

// These are the priors of a surface, in units of σ.
const (
	levelScale     = 100. // the standard deviation of the level of all networks
	quadraticScale = 5.   // and of each coefficient of the quadratic
	surfaceSeeds   = 0.1  // U
	surfaceDraws   = 128
	waves          = 512
)

var (
	bumps       = []float64{0.4, 1.5} // standard deviations of the deviations from the quadratic
	bumpLengths = []float64{0.7, 1.6} // in standard deviations of the features
	ownNuggets  = []float64{0.1, 0.5} // standard deviations of the deviations of single networks
)

// surface is the model of NewSurface.
type surface struct {
	x         [][]float64
	quadratic *mat.Dense // networks × terms: the products of the features
	// A prior draw of the means is the sum of a quadratic, of bumps of one of the lengths and of a
	// nugget. Each of these has a column for each draw.
	quadratics, nuggets *mat.Dense
	bumps               []*mat.Dense // by length
	uniform             []float64    // for each draw, for σ²
}

// NewSurface returns the model of many networks at points of a few features. Each feature has the
// mean 0 and the standard deviation 1 over the networks. A mean is a quadratic in the features, plus
// a Gaussian process, plus a deviation of the network's own.
func NewSurface(x [][]float64) Model {
	s := &surface{x: x, quadratic: quadratic(x)}
	random := rand.New(rand.NewPCG(1, 0))
	normal := func(rows int) *mat.Dense {
		m := mat.NewDense(rows, surfaceDraws, nil)
		m.Apply(func(int, int, float64) float64 { return random.NormFloat64() }, m)
		return m
	}
	_, terms := s.quadratic.Dims()
	s.quadratics = mat.NewDense(len(x), surfaceDraws, nil)
	s.quadratics.Mul(s.quadratic, normal(terms))
	level := normal(1)
	s.quadratics.Apply(func(_, draw int, v float64) float64 {
		return quadraticScale*v + levelScale*level.At(0, draw)
	}, s.quadratics)
	for _, length := range bumpLengths {
		// A sum of random waves has about the covariance exp(−d²/2·length²) (Rahimi & Recht,
		// Random features for large-scale kernel machines, 2007). Unlike a Cholesky factor it costs
		// no more than in proportion to the number of networks.
		w := mat.NewDense(len(x), waves, nil)
		for wave := range waves {
			frequency := make([]float64, len(x[0]))
			for f := range frequency {
				frequency[f] = random.NormFloat64() / length
			}
			phase := 2 * math.Pi * random.Float64()
			for i := range x {
				w.Set(i, wave, math.Sqrt(2./waves)*math.Cos(floats.Dot(frequency, x[i])+phase))
			}
		}
		var bump mat.Dense
		bump.Mul(w, normal(waves))
		s.bumps = append(s.bumps, &bump)
	}
	s.nuggets = normal(len(x))
	for range surfaceDraws {
		s.uniform = append(s.uniform, inside(random.Float64()))
	}
	return s
}

// quadratic returns the features and their products, each with the mean 0 and the standard
// deviation 1 over the networks.
func quadratic(x [][]float64) *mat.Dense {
	var columns [][]float64
	add := func(of func(p []float64) float64) {
		column := make([]float64, len(x))
		for i, p := range x {
			column[i] = of(p)
		}
		if mean, std := stat.PopMeanStdDev(column, nil); std > 1e-9 {
			floats.AddConst(-mean, column)
			floats.Scale(1/std, column)
			columns = append(columns, column)
		}
	}
	for a := range x[0] {
		add(func(p []float64) float64 { return p[a] })
	}
	for a := range x[0] {
		for b := range a + 1 {
			add(func(p []float64) float64 { return p[a] * p[b] })
		}
	}
	m := mat.NewDense(len(x), max(1, len(columns)), nil)
	for c, column := range columns {
		m.SetCol(c, column)
	}
	return m
}

// surfacePart is the posterior under fixed hyper-parameters.
type surfacePart struct {
	bump, nugget float64
	length       int          // an index into bumpLengths
	covariance   *mat.Dense   // networks × results
	chol         mat.Cholesky // of the covariance of the results
	rate, log    float64      // σ² is inverse gamma (…, rate); the logarithm of the weight
}

// Given implements Model.
func (s *surface) Given(results []Result) *Posterior {
	if len(results) == 0 {
		return nil
	}
	n := len(results)
	scores := make([]float64, n)
	for i, r := range results {
		scores[i] = r.Score
	}
	level := stat.Mean(scores, nil)
	floats.AddConst(-level, scores)
	y := mat.NewVecDense(n, scores)
	shape := sigmaShape + float64(n)/2
	var parts []surfacePart
	for length := range bumpLengths {
		smooth, near := s.covariances(results, length)
		for _, bump := range bumps {
			for _, nugget := range ownNuggets {
				p := surfacePart{bump: bump, nugget: nugget, length: length, covariance: mat.NewDense(len(s.x), n, nil)}
				p.covariance.Scale(bump*bump, near)
				p.covariance.Add(p.covariance, smooth)
				for at, r := range results {
					p.covariance.Set(r.Network, at, p.covariance.At(r.Network, at)+nugget*nugget)
				}
				p.weigh(results, y, shape)
				parts = append(parts, p)
			}
		}
	}
	return s.draw(parts, results, y, shape, level)
}

// covariances returns the covariances of the means of all networks with those of the results: of
// the level and the quadratic, and of bumps of one of the lengths.
func (s *surface) covariances(results []Result, length int) (smooth, near *mat.Dense) {
	k, n := len(s.x), len(results)
	_, terms := s.quadratic.Dims()
	at := mat.NewDense(n, terms, nil)
	for i, r := range results {
		at.SetRow(i, s.quadratic.RawRowView(r.Network))
	}
	smooth, near = mat.NewDense(k, n, nil), mat.NewDense(k, n, nil)
	smooth.Mul(s.quadratic, at.T())
	smooth.Apply(func(_, _ int, v float64) float64 {
		return levelScale*levelScale + quadraticScale*quadraticScale*v
	}, smooth)
	scale := 2 * bumpLengths[length] * bumpLengths[length]
	near.Apply(func(i, j int, _ float64) float64 {
		d := floats.Distance(s.x[i], s.x[results[j].Network], 2)
		return math.Exp(-d * d / scale)
	}, near)
	return smooth, near
}

// noise returns the covariance of two scores beside that of the means.
func noise(results []Result, i, j int) (v float64) {
	if i == j {
		v++
	}
	if results[i].Seed == results[j].Seed {
		v += surfaceSeeds
	}
	return v
}

// weigh computes what follows from the scores y.
func (p *surfacePart) weigh(results []Result, y *mat.VecDense, shape float64) {
	n := len(results)
	c := mat.NewSymDense(n, nil)
	for i, r := range results {
		for j := i; j < n; j++ {
			c.SetSym(i, j, p.covariance.At(r.Network, j)+noise(results, i, j))
		}
	}
	if !p.chol.Factorize(c) {
		panic("posterior: a covariance with noise is not positive definite")
	}
	var w mat.VecDense
	if err := p.chol.SolveVecTo(&w, y); err != nil && !isCondition(err) {
		panic(err)
	}
	p.rate = sigmaShape*sigmaScale*sigmaScale + mat.Dot(y, &w)/2
	p.log = -p.chol.LogDet()/2 - shape*math.Log(p.rate)
}

// draw takes draws from the parts in proportion to their weights. A draw is one of the prior, which
// is moved by what the scores say of it (Matheron's rule; Wilson et al., Efficiently sampling
// functions from Gaussian process posteriors, 2020).
func (s *surface) draw(parts []surfacePart, results []Result, y *mat.VecDense, shape, level float64) *Posterior {
	highest, total := math.Inf(-1), 0.
	for _, p := range parts {
		highest = max(highest, p.log)
	}
	for _, p := range parts {
		total += math.Exp(p.log - highest)
	}
	post := &Posterior{Concave: math.NaN(), Draws: make([][]float64, surfaceDraws)}
	x, sum := 0, 0.
	for i := range parts {
		p := &parts[i]
		sum += math.Exp(p.log - highest)
		first := x
		for x < surfaceDraws && ((float64(x)+0.5)/surfaceDraws*total <= sum || i == len(parts)-1) {
			x++
		}
		if x == first {
			continue
		}
		sigmas := make([]float64, x-first)
		for d := range sigmas {
			sigmas[d] = math.Sqrt(p.rate / mathext.GammaIncRegInv(shape, s.uniform[first+d]))
			post.Sigma += sigmas[d] * sigmas[d] / surfaceDraws
		}
		theta := s.move(p, results, y, first, sigmas)
		for d := range sigmas {
			draw := mat.Col(nil, d, theta)
			floats.AddConst(level, draw)
			post.Draws[first+d] = draw
		}
	}
	post.Sigma = math.Sqrt(post.Sigma)
	return post
}

// move returns the draws of a part from first on, one in each column, for given values of σ.
func (s *surface) move(p *surfacePart, results []Result, y *mat.VecDense, first int, sigmas []float64) *mat.Dense {
	k, n, count := len(s.x), len(results), len(sigmas)
	theta := mat.NewDense(k, count, nil)
	theta.Apply(func(i, d int, _ float64) float64 {
		x := first + d
		return sigmas[d] * (s.quadratics.At(i, x) + p.bump*s.bumps[p.length].At(i, x) + p.nugget*s.nuggets.At(i, x))
	}, theta)
	missing := mat.NewDense(n, count, nil) // the scores less those that belong to the prior draw
	for d, sigma := range sigmas {
		// The noise is drawn anew for each number of results.
		random := rand.New(rand.NewPCG(uint64(first+d), uint64(n)))
		seeds := map[int]float64{}
		for at, r := range results {
			if _, known := seeds[r.Seed]; !known {
				seeds[r.Seed] = math.Sqrt(surfaceSeeds) * random.NormFloat64()
			}
			e := seeds[r.Seed] + random.NormFloat64()
			missing.Set(at, d, y.AtVec(at)-theta.At(r.Network, d)-sigma*e)
		}
	}
	var weights, by mat.Dense
	if err := p.chol.SolveTo(&weights, missing); err != nil && !isCondition(err) {
		panic(err)
	}
	by.Mul(p.covariance, &weights)
	theta.Add(theta, &by)
	return theta
}
