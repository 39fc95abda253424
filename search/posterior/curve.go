package posterior

import (
	"math"
	"math/rand/v2"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distmv"
	"gonum.org/v1/gonum/stat/samplemv"
)

// These are the priors. Lengths are shares of the range of x, and the others are in units of σ or,
// as variances, of σ².
const (
	sigmaShape = 1.  // σ² is inverse gamma (sigmaShape, sigmaShape·sigmaScale²)
	sigmaScale = 0.5 // points
)

var (
	// The Gaussian process has the covariance amplitude²·[(1−ρ)·RBF(length) + ρ·I].
	amplitudes   = []float64{0.7, 3, 12}
	lengths      = []float64{0.3, 0.6, 1.2}
	roughness    = []weighted{{0.003, 0.4}, {0.05, 0.25}, {0.3, 0.2}, {1, 0.15}} // ρ
	unstructured = []weighted{{1, 1}}

	// A concave curve is a + s·g + δ: s half normal, and δ a nugget for each network.
	slopes  = []float64{1, 6}                                           // standard deviations of s
	nuggets = []weighted{{0.05, 0.45}, {0.3, 0.25}, {1, 0.2}, {3, 0.1}} // standard deviations of δ
)

// smallNuggets is the number of nuggets that are at most 0.3 σ, for Posterior.Concave.
const smallNuggets = 2

// Detail says how much is computed for a Posterior.
type Detail struct {
	shapes, draws int
	seeds         []float64 // the values of U, each with the same probability
}

var (
	// Quick is for decisions, of which a search takes many.
	Quick = Detail{shapes: 256, draws: 384, seeds: []float64{0, 0.5}}
	// Fine is for what a reader is told. It also expects larger effects of the seeds.
	Fine = Detail{shapes: 1024, draws: 2048, seeds: []float64{0, 0.5, 2}}
)

// weighted is a value of a hyper-parameter and its prior probability.
type weighted struct{ value, weight float64 }

// field is the model of NewCurve, NewField and NewFree.
type field struct {
	networks int
	seeds    []float64 // variances of the effect of a seed
	process  []process
	shapes   [][]float64
	half     float64      // the prior probability of the concave curves
	normal   [][]float64  // for each draw, a normal number for each network and one for the level
	uniform  [][2]float64 // for each draw, for the slope and for σ²

	mu    sync.Mutex
	gamma map[float64][]float64 // quantiles of the gamma distribution for each draw, by its shape
}

// process is a Gaussian process with fixed hyper-parameters from which the constant is projected
// out, so that nothing is expected of the level of all networks.
type process struct {
	precision []float64 // networks × networks
	logDet    float64   // of the precision
	logWeight float64   // the logarithm of its prior probability
}

// NewCurve returns the model of the pairs of one budget. x has log2 M of each, with at least two
// different values.
func NewCurve(x []float64, d Detail) Model {
	points := make([][]float64, len(x))
	for i, v := range x {
		points[i] = []float64{v}
	}
	return newField(points, d, roughness, concaveShapes(x, d.shapes))
}

// NewField returns the model of a few networks at points of several features.
func NewField(x [][]float64, d Detail) Model { return newField(x, d, roughness, nil) }

// NewFree returns a model that expects nothing of how the means of the networks are related.
func NewFree(networks int, d Detail) Model {
	return newField(make([][]float64, networks), d, unstructured, nil)
}

func newField(x [][]float64, d Detail, rough []weighted, concave [][]float64) *field {
	f := &field{networks: len(x), seeds: d.seeds, shapes: concave, gamma: map[float64][]float64{}}
	if concave != nil {
		f.half = 0.5
	}
	f.process = processes(x, rough, 1-f.half)
	random := rand.NewPCG(1, 0)
	uniform := points(d.draws, f.networks+3, random)
	// The draws are taken from the parts of the mixture in their order. The points are shuffled, so
	// that those of one part are spread over the whole unit cube.
	for _, from := range rand.New(random).Perm(d.draws) {
		row := uniform.RawRowView(from)
		normal := make([]float64, f.networks+1)
		for i := range normal {
			normal[i] = mathext.NormalQuantile(inside(row[i]))
		}
		f.normal = append(f.normal, normal)
		f.uniform = append(f.uniform, [2]float64{inside(row[f.networks+1]), inside(row[f.networks+2])})
	}
	return f
}

// points returns points that are spread over the unit cube, one in each row.
func points(n, dimensions int, random rand.Source) *mat.Dense {
	list, cube := mat.NewDense(n, dimensions, nil), distmv.NewUnitUniform(dimensions, random)
	if dimensions < 1000 { // gonum has no Halton points of more
		samplemv.Halton{Kind: samplemv.Owen, Q: cube, Src: random}.Sample(list)
	} else {
		samplemv.IID{Dist: cube}.Sample(list)
	}
	return list
}

// inside keeps a probability away from 0 and 1, where quantiles are infinite.
func inside(p float64) float64 { return min(1-1e-6, max(1e-6, p)) }

// processes returns the Gaussian processes over points, with a prior probability of weight in all.
func processes(points [][]float64, rough []weighted, weight float64) (list []process) {
	k := len(points)
	d2 := squaredDistances(points)
	for _, amplitude := range amplitudes {
		for _, rho := range rough {
			few := lengths
			if rho.value == 1 {
				few = lengths[:1] // the covariance has no length then
			}
			for _, length := range few {
				c := mat.NewSymDense(k, nil)
				for i := range k {
					for j := range i + 1 {
						c.SetSym(i, j, math.Exp(-d2.At(i, j)/(2*length*length)))
					}
				}
				// The curves have unit variance about their mean over the networks.
				unit := (mat.Trace(c) - mat.Sum(c)/float64(k)) / float64(k)
				c.ScaleSym(amplitude*amplitude*(1-rho.value)/max(unit, 1e-9), c)
				for i := range k {
					c.SetSym(i, i, c.At(i, i)+amplitude*amplitude*(rho.value+1e-8))
				}
				p := withoutConstant(c)
				p.logWeight = math.Log(weight * rho.weight / float64(len(few)*len(amplitudes)))
				list = append(list, p)
			}
		}
	}
	return list
}

// squaredDistances returns the squared distances of points whose every feature is scaled to the
// range from 0 to 1.
func squaredDistances(points [][]float64) *mat.SymDense {
	d2 := mat.NewSymDense(len(points), nil)
	for f := range points[0] {
		low, high := math.Inf(1), math.Inf(-1)
		for _, p := range points {
			low, high = min(low, p[f]), max(high, p[f])
		}
		for i, p := range points {
			for j := range i {
				d := (p[f] - points[j][f]) / max(high-low, 1e-9)
				d2.SetSym(i, j, d2.At(i, j)+d*d)
			}
		}
	}
	return d2
}

// withoutConstant returns a process of the covariance c with a constant of unlimited variance added.
func withoutConstant(c *mat.SymDense) process {
	k := c.SymmetricDim()
	var chol mat.Cholesky
	if !chol.Factorize(c) {
		panic("posterior: a covariance with a nugget is not positive definite")
	}
	var inverse mat.SymDense
	if err := chol.InverseTo(&inverse); err != nil && !isCondition(err) {
		panic(err)
	}
	rows := make([]float64, k)
	for i := range k {
		for j := range k {
			rows[i] += inverse.At(i, j)
		}
	}
	sum := floats.Sum(rows)
	p := process{precision: make([]float64, k*k), logDet: -chol.LogDet() - math.Log(sum)}
	for i := range k {
		for j := range k {
			p.precision[i*k+j] = inverse.At(i, j) - rows[i]*rows[j]/sum
		}
	}
	return p
}

// isCondition reports whether an error of mat only warns of a large condition number.
func isCondition(err error) bool {
	_, ok := err.(mat.Condition)
	return ok
}

// evidence is what the scores say of the means for one variance of the seeds: their likelihood is
// proportional to exp(−(θᵀ·precision·θ − 2·linearᵀ·θ + square)/2σ²).
type evidence struct {
	precision []float64 // networks × networks
	linear    []float64
	square    float64
	logDet    float64 // of the covariance of the scores
}

// evidenceOf integrates the effects of the seeds out of centred scores.
func evidenceOf(results []Result, networks int, seedVariance float64) evidence {
	e := evidence{precision: make([]float64, networks*networks), linear: make([]float64, networks)}
	seeds := map[int][]Result{}
	var order []int
	for _, r := range results {
		if seeds[r.Seed] == nil {
			order = append(order, r.Seed)
		}
		seeds[r.Seed] = append(seeds[r.Seed], r)
	}
	for _, seed := range order {
		same := seeds[seed]
		sum := 0.
		for _, r := range same {
			sum += r.Score
		}
		shared := seedVariance / (1 + seedVariance*float64(len(same)))
		for _, r := range same {
			e.precision[r.Network*networks+r.Network]++
			e.linear[r.Network] += r.Score - shared*sum
			e.square += r.Score * r.Score
			for _, other := range same {
				e.precision[r.Network*networks+other.Network] -= shared
			}
		}
		e.square -= shared * sum * sum
		e.logDet += math.Log1p(seedVariance * float64(len(same)))
	}
	return e
}

// part is a part of the mixture: the posterior under fixed hyper-parameters.
type part struct {
	process *gaussian // nil for a concave curve
	curve   *concave
	shape   []float64
	slope   float64 // the mean of s
	unit    float64 // the precision of s
	along   float64 // what a step of s moves the level by
	rate    float64 // σ² is inverse gamma (…, rate)
	concave bool    // with a small nugget
	log     float64 // the logarithm of its weight
}

// gaussian is the posterior of the means in a Gaussian process.
type gaussian struct {
	factor blas64.Triangular // the upper Cholesky factor of the precision
	mean   []float64
}

// Given implements Model.
func (f *field) Given(results []Result) *Posterior {
	if len(results) == 0 {
		return nil
	}
	level := 0.
	for _, r := range results {
		level += r.Score / float64(len(results))
	}
	centred := make([]Result, len(results))
	for i, r := range results {
		centred[i] = Result{r.Network, r.Seed, r.Score - level}
	}
	shape := sigmaShape + float64(len(results)-1)/2
	parts := make([]part, 0, len(f.seeds)*(len(f.process)+len(nuggets)*len(slopes)*len(f.shapes)))
	for _, variance := range f.seeds {
		e := evidenceOf(centred, f.networks, variance)
		for _, p := range f.process {
			parts = append(parts, p.given(e, shape))
		}
		for n, nugget := range nuggets {
			if len(f.shapes) > 0 {
				parts = append(parts, f.concaveParts(e, nugget, n < smallNuggets, shape)...)
			}
		}
	}
	return f.draw(parts, shape, level)
}

// given returns the part of a process.
func (p process) given(e evidence, shape float64) part {
	k := len(e.linear)
	sum := make([]float64, k*k)
	floats.AddTo(sum, p.precision, e.precision)
	g := &gaussian{mean: append([]float64(nil), e.linear...)}
	g.factor = factorize(sum, k)
	mean := blas64.Vector{N: k, Inc: 1, Data: g.mean}
	blas64.Trsv(blas.Trans, g.factor, mean)
	square := max(1e-12, e.square-floats.Dot(g.mean, g.mean))
	blas64.Trsv(blas.NoTrans, g.factor, mean)
	rate := sigmaShape*sigmaScale*sigmaScale + square/2
	return part{process: g, rate: rate,
		log: (p.logDet-logDet(g.factor)-e.logDet)/2 - shape*math.Log(rate) + p.logWeight}
}

// factorize returns the upper Cholesky factor of a, which it overwrites.
func factorize(a []float64, k int) blas64.Triangular {
	t, ok := lapack64.Potrf(blas64.Symmetric{N: k, Stride: k, Data: a, Uplo: blas.Upper})
	if !ok {
		panic("posterior: a precision is not positive definite")
	}
	return t
}

// logDet returns the logarithm of the determinant of the matrix of a Cholesky factor.
func logDet(t blas64.Triangular) (sum float64) {
	for i := range t.N {
		sum += 2 * math.Log(t.Data[i*t.Stride+i])
	}
	return sum
}

// concave is the posterior of the nuggets of a concave curve, given its level and its slope.
type concave struct {
	evidence  evidence
	factor    blas64.Triangular // of the precision of the evidence and the nugget
	variance  float64           // of the nugget
	level     float64           // the precision of the level
	levelMean float64           // the level of a flat curve, times its precision
}

// concaveParts returns a part for every shape and slope, for one nugget.
func (f *field) concaveParts(e evidence, nugget weighted, small bool, shape float64) []part {
	k := f.networks
	c := &concave{evidence: e, variance: nugget.value * nugget.value}
	sum := append([]float64(nil), e.precision...)
	for i := range k {
		sum[i*k+i] += 1 / c.variance
	}
	c.factor = factorize(sum, k)

	// With the nuggets integrated out, the scores have this precision and linear term in the values
	// of the curve.
	half := blas64.General{Rows: k, Cols: k, Stride: k, Data: append([]float64(nil), e.precision...)}
	blas64.Trsm(blas.Left, blas.Trans, 1, c.factor, half)
	seen := blas64.Vector{N: k, Inc: 1, Data: append([]float64(nil), e.linear...)}
	blas64.Trsv(blas.Trans, c.factor, seen)
	precision := blas64.General{Rows: k, Cols: k, Stride: k, Data: append([]float64(nil), e.precision...)}
	blas64.Gemm(blas.Trans, blas.NoTrans, -1, half, half, 1, precision)
	linear := blas64.Vector{N: k, Inc: 1, Data: append([]float64(nil), e.linear...)}
	blas64.Gemv(blas.Trans, -1, half, seen, 1, linear)
	square := e.square - blas64.Dot(seen, seen)

	rows := make([]float64, k)
	for i := range k {
		rows[i] = floats.Sum(precision.Data[i*k : (i+1)*k])
	}
	c.level, c.levelMean = floats.Sum(rows), floats.Sum(linear.Data)
	square -= c.levelMean * c.levelMean / c.level
	base := -(e.logDet+logDet(c.factor)+float64(k)*math.Log(c.variance)+math.Log(c.level))/2 +
		math.Log(2*nugget.weight*f.half/float64(len(f.shapes)*len(slopes)))

	parts := make([]part, 0, len(f.shapes)*len(slopes))
	for _, g := range f.shapes {
		curvature, mixed := 0., floats.Dot(rows, g)
		for i, v := range g {
			curvature += v * floats.Dot(precision.Data[i*k:(i+1)*k], g)
		}
		curvature -= mixed * mixed / c.level
		towards := floats.Dot(linear.Data, g) - mixed*c.levelMean/c.level
		for _, s := range slopes {
			p := part{curve: c, shape: g, concave: small, unit: curvature + 1/(s*s), along: mixed}
			p.slope = towards / p.unit
			p.rate = sigmaShape*sigmaScale*sigmaScale + max(1e-12, square-towards*p.slope)/2
			// The slope is positive with this probability. It has Student's distribution, which is
			// near to the normal one at this z.
			t, degrees := p.slope*math.Sqrt(p.unit*shape/p.rate), 2*shape
			z := t * (1 - 1/(4*degrees)) / math.Sqrt(1+t*t/(2*degrees))
			p.log = base - math.Log(s*s*p.unit)/2 - shape*math.Log(p.rate) + logNormalCDF(z)
			parts = append(parts, p)
		}
	}
	return parts
}

// logNormalCDF returns the logarithm of the normal distribution function.
func logNormalCDF(z float64) float64 {
	if z > -10 {
		return math.Log(normalCDF(z))
	}
	z2 := z * z // an asymptotic series (Abramowitz & Stegun, 26.2.12)
	return -z2/2 - math.Log(-z) - math.Log(2*math.Pi)/2 + math.Log1p(-1/z2+3/(z2*z2))
}

func normalCDF(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }

// draw takes draws from the parts in proportion to their weights.
func (f *field) draw(parts []part, shape, level float64) *Posterior {
	highest := math.Inf(-1)
	for i := range parts {
		highest = max(highest, parts[i].log)
	}
	total, concave := 0., 0.
	weights := make([]float64, len(parts))
	for i := range parts {
		weights[i] = math.Exp(parts[i].log - highest)
		total += weights[i]
		if parts[i].concave {
			concave += weights[i]
		}
	}
	draws := len(f.normal)
	post := &Posterior{Concave: concave / total, Draws: make([][]float64, draws)}
	if len(f.shapes) == 0 {
		post.Concave = math.NaN()
	}
	gamma := f.gammas(shape)
	at, sum := 0, weights[0]
	for x := range draws {
		for want := (float64(x) + 0.5) / float64(draws) * total; sum < want && at < len(parts)-1; {
			at++
			sum += weights[at]
		}
		sigma := math.Sqrt(parts[at].rate / gamma[x])
		theta := parts[at].draw(f.normal[x], f.uniform[x][0], sigma)
		floats.AddConst(level, theta)
		post.Draws[x] = theta
		post.Sigma += sigma * sigma / float64(draws)
	}
	post.Sigma = math.Sqrt(post.Sigma)
	return post
}

// gammas returns the quantile of the gamma distribution with a shape and the rate 1 for each draw.
func (f *field) gammas(shape float64) []float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gamma[shape] == nil {
		q := make([]float64, len(f.uniform))
		for x := range q {
			q[x] = mathext.GammaIncRegInv(shape, f.uniform[x][1])
		}
		f.gamma[shape] = q
	}
	return f.gamma[shape]
}

// draw returns the means for normal numbers, a uniform one and a value of σ.
func (p *part) draw(normal []float64, uniform, sigma float64) []float64 {
	if g := p.process; g != nil {
		theta := append([]float64(nil), normal[:len(g.mean)]...)
		blas64.Trsv(blas.NoTrans, g.factor, blas64.Vector{N: len(theta), Inc: 1, Data: theta})
		for i, m := range g.mean {
			theta[i] = m + sigma*theta[i]
		}
		return theta
	}
	c := p.curve
	k := len(p.shape)
	below := normalCDF(-p.slope * math.Sqrt(p.unit) / sigma) // the probability of a negative slope
	slope := max(0, p.slope+sigma/math.Sqrt(p.unit)*mathext.NormalQuantile(min(1, below+(1-below)*uniform)))
	if math.IsInf(slope, 0) || math.IsNaN(slope) { // all the probability is at a slope of 0
		slope = 0
	}
	level := (c.levelMean-p.along*slope)/c.level + sigma/math.Sqrt(c.level)*normal[k]
	theta := make([]float64, k)
	for i, g := range p.shape {
		theta[i] = c.evidence.linear[i] + (level+slope*g)/c.variance
	}
	v := blas64.Vector{N: k, Inc: 1, Data: theta}
	blas64.Trsv(blas.Trans, c.factor, v)
	floats.AddScaled(theta, sigma, normal[:k])
	blas64.Trsv(blas.NoTrans, c.factor, v)
	return theta
}
